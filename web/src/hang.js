// The parts of the *hang* format that a picture needs: its catalog, and frames that begin with a timestamp.

import { Time, Varint } from "@moq/net";

/** Track with the catalog: one JSON document per group; later frames of a group are merge patches. */
export const CATALOG = "catalog.json";

/** A merge patch (RFC 7396) applied to a value. */
export function merge(value, patch) {
	if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
	const merged = value !== null && typeof value === "object" && !Array.isArray(value) ? { ...value } : {};
	for (const [name, change] of Object.entries(patch)) {
		if (change === null) delete merged[name];
		else merged[name] = merge(merged[name], change);
	}
	return merged;
}

/** Yields every state of a catalog until its track ends. */
export async function* catalogs(subscription) {
	const decoder = new TextDecoder();
	for (let group = await subscription.nextGroup(); group; group = await subscription.nextGroup()) {
		let value;
		for (let frame = await group.readFrame(); frame; frame = await group.readFrame()) {
			const said = JSON.parse(decoder.decode(frame.payload));
			value = value === undefined ? said : merge(value, said);
			yield value;
		}
	}
}

/** A frame of the `legacy` container: microseconds as a varint, then the codec's data. */
export function pack(chunk) {
	const stamp = Varint.encode(chunk.timestamp);
	const payload = new Uint8Array(stamp.byteLength + chunk.byteLength);
	payload.set(stamp);
	chunk.copyTo(payload.subarray(stamp.byteLength));
	return { payload, timestamp: Time.Timestamp.fromMicros(chunk.timestamp) };
}

const LOC_TIMESCALE = 0x08;
const LOC_TIMESTAMPS = [0x10, 0x06];

/** The properties before a frame of the `loc` container: those with even ids are numbers. */
function loc(payload) {
	let [size, rest] = Varint.decode(payload);
	const data = rest.subarray(size);
	rest = rest.subarray(0, size);
	let id = 0;
	let scale = 1_000_000;
	let stamp = 0;
	while (rest.byteLength > 0) {
		const [step, after] = Varint.decode(rest);
		const [value, left] = Varint.decode(after);
		id += step;
		rest = id % 2 === 0 ? left : left.subarray(value);
		if (id === LOC_TIMESCALE && value > 0) scale = value;
		if (LOC_TIMESTAMPS.includes(id)) stamp = value;
	}
	return { timestamp: Math.round((stamp * 1_000_000) / scale), data };
}

/** Parser of a container's frames, or `undefined` for a container that this page does not play. */
export function unpacker(kind = "legacy") {
	if (kind === "loc") return loc;
	if (kind !== "legacy") return undefined;
	return (payload) => {
		const [timestamp, data] = Varint.decode(payload);
		return { timestamp, data };
	};
}

/** Bytes of a description, which is written in hexadecimal digits. */
export const unhex = (digits) => Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
