// Sessions with the relay of this page.

import { Connection } from "@moq/net";
import { DRAINING, info, isSilent, known, refusal } from "./info.js";
import { token } from "./route.js";

// Pauses between attempts, milliseconds; the last one is repeated.
const RETRY_MS = [250, 500, 1000, 2000, 4000];
// A session that lasts this long resets the pauses.
const GOOD_MS = 2000;
// Time for which an unused session is kept for the next viewer.
const LINGER_MS = 3000;
// Head start of WebTransport over WebSocket: enough for a slow machine or network, because a session never switches.
const HEAD_START_MS = 2000;
// An attempt that falls back to WebSocket takes less than this.
const PATIENCE_MS = 6000;

/** A URL of a session, with the token of this page. */
function withToken(url) {
	const found = new URL(url, location.href);
	found.hash = "";
	if (token() !== null) found.searchParams.set("jwt", token());
	return found;
}

const pins = (fingerprint) => ({ serverCertificateHashes: [{ algorithm: "sha-256", value: fingerprint }] });

/**
 * A session that is reopened when it is lost: WebTransport first, WebSocket where that fails. The relay is asked
 * for its addresses before each attempt: they and the certificate may differ after a restart.
 */
export function dial() {
	const connection = new Connection.Reload({ enabled: false, delay: { initial: RETRY_MS[0], multiplier: 2, max: 5000, timeout: Number.POSITIVE_INFINITY } });
	let failures = 0;
	let ended = false;
	let timer;
	connection.lostAt = performance.now();
	const attempt = async () => {
		try {
			const { session, websocket, fingerprint, refused } = await info();
			if (ended) return;
			if (refused === DRAINING) return later();
			connection.webtransport = fingerprint ? pins(fingerprint) : undefined;
			connection.websocket = websocket === null ? { enabled: false } : { url: withToken(websocket), delay: HEAD_START_MS };
			connection.url.set(withToken(session ?? "/"));
			connection.enabled.set(true);
		} catch {
			later();
		}
	};
	const later = () => {
		if (ended) return;
		const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
		failures += 1;
		// Jitter, so that the pages of one relay do not all reconnect at the same moment.
		timer = setTimeout(attempt, wait * (0.5 + Math.random() / 2));
	};
	let openedAt;
	each(connection.status, (status) => {
		if (status === "connected") openedAt = performance.now();
		if (status !== "disconnected" || !connection.enabled.peek()) return;
		connection.lostAt = performance.now();
		if (openedAt !== undefined && connection.lostAt - openedAt > GOOD_MS) failures = 0;
		openedAt = undefined;
		connection.enabled.set(false);
		later();
	});
	connection.closed.then(() => {
		ended = true;
		clearTimeout(timer);
	});
	attempt();
	return connection;
}

/** Reason why a connection has no session; empty while one is open or may still open. */
export function trouble(connection) {
	if (!connection || connection.established.peek() || performance.now() - connection.lostAt < PATIENCE_MS) return "";
	const found = known();
	if (!found || isSilent()) return "Cannot connect: the relay does not answer.";
	const refused = refusal(found);
	if (refused !== "") return refused;
	const other = found.websocket === null ? "" : `, nor WebSocket at ${new URL(found.websocket, location.href).host}`;
	return `Cannot connect: no answer from ${found.session ?? location.host} over QUIC (UDP)${other}. A firewall may block it, or web.origins may not list ${location.origin}.`;
}

/** Transport and version of a session, in words. */
export function carried(session) {
	if (!session) return "connecting";
	const transport = session.transport === "websocket" ? "WebSocket" : "WebTransport";
	return `${transport}, ${session.version}`;
}

let shared;
let users = 0;
let ending;

/** The session of all viewers: opened for the first one, closed after the last. */
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

/** Calls `heard` with the value of a signal, now and after each change; returns a function that unsubscribes. */
export function each(signal, heard) {
	const end = signal.subscribe(heard);
	heard(signal.peek());
	return end;
}
