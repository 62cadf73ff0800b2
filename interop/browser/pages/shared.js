// Code shared by both sides of a test.

/** Content of a frame, which depends on its position. */
export function block(group, frame, size) {
	const bytes = new Uint8Array(size);
	for (let at = 0; at < size; at += 1) bytes[at] = (at * 31 + (at >> 8) * 17 + group * 7 + frame * 13) & 255;
	return bytes;
}

/** Digest of bytes: length and SHA-256. */
export async function digest(bytes) {
	const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
	return `${bytes.byteLength}:${Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
