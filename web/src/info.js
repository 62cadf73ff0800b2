// The relay's addresses and the rights of this page there: `/page.json`.

import { token } from "./route.js";

// Several parts of the page ask at the same time, for example when a session is lost.
const FRESH_MS = 1000;
const TIMEOUT_MS = 15_000;
const PATTERNS_SHOWN = 3;
/** The reason why a relay that is about to stop opens no sessions. */
export const DRAINING = "draining";
// Without letters that look like digits.
const LETTERS = "abcdefghijkmnpqrstuvwxyz23456789";

let asked;
let latest = null;
let failed = false;
const listeners = new Set();

/** An address on the relay's HTTP listener, with the token of this page. */
export function address(path, parameters = {}) {
	const url = new URL(path, location.href);
	url.hash = "";
	url.search = "";
	if (token() !== null) url.searchParams.set("jwt", token());
	for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
	return url;
}

/** Answer for a relay without `/page.json`: everything is at the address of the page, and its rights are unknown. */
const assumed = () => ({ session: new URL("/", location.href).href, websocket: "/", fingerprint: null, permit: null, refused: null });

async function ask() {
	const answer = await fetch(address("page.json"), { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
	if (answer.status === 404) return assumed();
	if (!answer.ok) throw new Error(`page.json: status ${answer.status}`);
	return { ...assumed(), ...(await answer.json()) };
}

/** Asks the relay; an answer is reused for one second. */
export function info() {
	if (asked && (asked.at === null || performance.now() - asked.at < FRESH_MS)) return asked.answer;
	const request = { at: null, answer: ask() };
	asked = request;
	request.answer.then(
		(found) => {
			request.at = performance.now();
			failed = false;
			latest = found;
			for (const listener of listeners) listener(found);
		},
		() => {
			failed = true;
			if (asked === request) asked = undefined;
		},
	);
	return request.answer;
}

/** The last answer; null before the first. */
export const known = () => latest;

/** Whether the last request to the relay failed. */
export const isSilent = () => failed;

/** Calls `listener` with each new answer. */
export const onInfo = (listener) => listeners.add(listener);

const part = (pattern, value) => {
	const star = pattern.indexOf("*");
	if (star < 0) return pattern === value;
	return value.length >= pattern.length - 1 && value.startsWith(pattern.slice(0, star)) && value.endsWith(pattern.slice(star + 1));
};

function matches([first, ...rest], path) {
	if (first === undefined) return path.length === 0;
	if (first === "**") return path.some((_, at) => matches(rest, path.slice(at))) || matches(rest, []);
	return path.length > 0 && part(first, path[0]) && matches(rest, path.slice(1));
}

/** Whether one of the patterns (`anon/**`, `room/*\/cam`, `cam-*`) matches the path. */
export const allows = (patterns, path) => patterns.some((pattern) => matches(pattern.split("/"), path.split("/")));

const list = (patterns) => {
	const shown = patterns.slice(0, PATTERNS_SHOWN).map((pattern) => (pattern === "**" ? "every path" : pattern));
	const more = patterns.length - shown.length;
	return more > 0 ? `${shown.join(", ")} and ${more} more` : shown.join(", ");
};

const hint = () => (token() === null ? " A token in the address of this page (?jwt=…) can allow it." : "");

/** Reason why this page gets no session; empty if it gets one, or if that is unknown. */
export function refusal(found = latest) {
	if (found?.refused === DRAINING) return "The relay is about to stop and opens no sessions.";
	if (!found?.refused) return "";
	const shown = token() === null ? hint() : " The token in the address of this page (?jwt=…) is not accepted.";
	return `The relay refuses sessions of this page: ${found.refused}.${shown}`;
}

/** Reason why `path` cannot be published (`right` is "publish") or watched ("subscribe"); empty if it can be, or if that is unknown. */
export function forbidden(right, path, found = latest) {
	if (!found?.permit) return refusal(found);
	const patterns = found.permit[right];
	if (allows(patterns, path)) return "";
	const what = right === "publish" ? "publish" : "watch";
	if (patterns.length === 0) return `The relay does not allow this page to ${what} anything.${hint()}`;
	return `The relay does not allow this page to ${what} “${path}”. Allowed: ${list(patterns)}.${hint()}`;
}

/** The rights of this page in one sentence; empty if they are unknown. */
export function rights(found = latest) {
	if (!found?.permit) return refusal(found);
	const { publish, subscribe } = found.permit;
	const some = (patterns) => (patterns.length === 0 ? "nothing" : list(patterns));
	if (`${publish}` === `${subscribe}`) return `This page can publish and watch ${some(publish)}.${publish.length === 0 ? hint() : ""}`;
	return `This page can publish ${some(publish)}, and watch ${some(subscribe)}.`;
}

/** The publish rights of this page, if they are limited; empty otherwise. */
export function limits(found = latest) {
	if (!found?.permit) return refusal(found);
	const { publish } = found.permit;
	if (publish.length === 0) return `The relay does not allow this page to publish.${hint()}`;
	return publish.includes("**") ? "" : `Allowed paths: ${list(publish)}`;
}

export function random() {
	const picked = crypto.getRandomValues(new Uint8Array(4));
	return Array.from(picked, (byte) => LETTERS[byte % LETTERS.length]).join("");
}

/** A path that this page may publish: `demo/NAME`, or the first pattern with NAME in its gaps. */
export function suggestion(name, found = latest) {
	const usual = `demo/${name}`;
	const patterns = found?.permit?.publish ?? [];
	if (patterns.length === 0 || allows(patterns, usual)) return usual;
	const filled = patterns.map((pattern) => pattern.replace(/\*\*?/g, name)).filter((path) => path !== "" && allows(patterns, path));
	return filled[0] ?? usual;
}
