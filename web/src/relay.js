// Sessions with the relay this page came from.

import { Connection } from "@moq/net";

const RETRY = { initial: 500, multiplier: 2, max: 5000, timeout: Number.POSITIVE_INFINITY };

// One who stops looking and looks again a moment later keeps the session.
const LINGER_MS = 3000;

/** Where sessions go: the relay's own address, with the token the page was opened with. */
function address() {
	const url = new URL("/", location.href);
	const token = new URLSearchParams(location.search).get("jwt");
	if (token) url.searchParams.set("jwt", token);
	return url;
}

/** A session that comes back when it is lost. WebTransport first, WebSocket where that does not come about. */
export const dial = () => new Connection.Reload({ enabled: true, url: address(), delay: RETRY });

// Long enough for one that falls back to WebSocket.
const PATIENCE_S = 6;

/** What to tell somebody who has waited `seconds` for a session; empty while it may yet come, or is there. */
export function trouble(session, seconds) {
	if (session || seconds < PATIENCE_S) return "";
	return "No session comes about: this address answers neither WebTransport nor WebSocket, or lets nobody in without a token (?jwt=…). Publishing and watching need the relay's public address.";
}

/** How a session is carried, in words. */
export function carried(session) {
	if (!session) return "connecting";
	const transport = session.transport === "websocket" ? "WebSocket" : "WebTransport";
	return `${transport}, ${session.version}`;
}

let shared;
let users = 0;
let ending;

/** The session everything is watched over: opened by the first who borrows it, closed after the last. */
export function borrow() {
	clearTimeout(ending);
	shared ??= dial();
	users += 1;
	const connection = shared;
	let returned = false;
	const giveBack = () => {
		if (returned) return;
		returned = true;
		users -= 1;
		if (users > 0) return;
		ending = setTimeout(() => {
			shared?.close();
			shared = undefined;
		}, LINGER_MS);
	};
	return { connection, giveBack };
}

/** Calls `heard` with what a signal holds, now and whenever it changes; returns what ends that. */
export function each(signal, heard) {
	const end = signal.subscribe(heard);
	heard(signal.peek());
	return end;
}
