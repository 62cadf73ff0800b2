#!/usr/bin/env node
// Shows the page without a relay's HTTP side, for work on the page: the built files, an invented `/status`,
// and the fingerprint of a relay that runs on the same port number over UDP.
//
//     node dev.mjs [--port 4443] [--fingerprint HEX] [--broadcasts 12] [--private] [--watch]

import { spawnSync } from "node:child_process";
import { readFileSync, watch } from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "../crates/http/src/page/dist");
const { values: options } = parseArgs({
	options: {
		port: { type: "string", default: "4443" },
		fingerprint: { type: "string", default: "" },
		broadcasts: { type: "string", default: "12" },
		private: { type: "boolean", default: false },
		watch: { type: "boolean", default: false },
	},
});

const began = Date.now();
const files = { "/": ["index.html", "text/html; charset=utf-8"], "/page.js": ["page.js", "text/javascript; charset=utf-8"], "/page.css": ["page.css", "text/css; charset=utf-8"] };
const policy =
	"default-src 'self'; connect-src 'self' https://127.0.0.1:*; img-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const places = ["sports/arena-1", "sports/arena-2", "conf/main-hall", "conf/room-b", "news/studio", "radio/fm4", "demo/bbb", "cam/harbour", "cam/bridge-north", "chat/lobby", "rooms/kiel/alice", "rooms/kiel/bob"];
const wave = (at, speed, shift) => 0.5 + 0.5 * Math.sin(at / speed + shift);

/** Figures of an invented relay. */
function status() {
	const at = (Date.now() - began) / 1000;
	const broadcasts = Array.from({ length: Number(options.broadcasts) }, (_, n) => {
		const path = n < places.length ? places[n] : `load/${n % 7}/stream-${String(n).padStart(4, "0")}`;
		const viewers = Math.floor(200 * wave(at, 40, n * 1.7) ** 3);
		const track = (name, bps) => ({ name, viewers, in_bps: bps, groups: Math.floor(at / 2) + n, frames: Math.floor(at * 30), bytes: Math.floor((bps / 8) * at), latest_group: Math.floor(at / 2) + n, cached_groups: 4, cached_bytes: Math.floor(bps) });
		return { path, age_s: at + n * 97, publisher: `${n + 11}`, viewers, tracks: [track("catalog.json", 0), track("video", 1.1e6 + 9e5 * wave(at, 9, n)), track("audio", 64_000)] };
	});
	const input = broadcasts.reduce((sum, one) => sum + one.tracks.reduce((a, b) => a + b.in_bps, 0), 0);
	const output = broadcasts.reduce((sum, one) => sum + one.viewers * one.tracks.reduce((a, b) => a + b.in_bps, 0), 0);
	const transports = ["webtransport", "quic", "websocket", "tcp", "unix"];
	const sessions = Array.from({ length: 40 }, (_, n) => ({ id: `${n + 11}`, remote: n % 3 ? `192.0.2.${n}:5${String(n * 37).padStart(4, "0")}` : `[2001:db8::${n.toString(16)}]:61244`, transport: transports[n % 5], version: n % 4 ? "moq-lite-05" : "moq-lite-06", path: n % 2 ? "" : "rooms", age_s: at + n * 31, rtt_ms: n % 5 === 4 ? null : 3 + n * 1.7, bytes_in: 1e6, bytes_out: 9e6, in_bps: n % 4 ? 4000 : 1.2e6, out_bps: 1.2e6 * wave(at, 5, n), publishes: n % 4 ? 0 : 1, subscriptions: n % 4 ? 3 : 0 }));
	return {
		relay: { version: "0.1.0", name: "fra1", uptime_s: at + 98_765, workers: 2, draining: false, address: "127.0.0.1:4443", fingerprint: options.fingerprint || null },
		load: { cpu_cores: 0.2 + wave(at, 11, 0), memory_bytes: 412e6 + 2e7 * wave(at, 17, 0), memory_limit_bytes: 2 * 2 ** 30, cache_bytes: 300e6, cache_limit_bytes: 800e6 },
		traffic: { bytes_in: 1e9, bytes_out: 1e10, frames_in: 1e6, frames_out: 1e7, in_bps: input, out_bps: output },
		sessions,
		sessions_total: 40,
		broadcasts: broadcasts.slice(0, 1000),
		broadcasts_total: broadcasts.length,
	};
}

function answer(request, response) {
	const { pathname } = new URL(request.url, "http://localhost");
	const send = (code, type, body) => response.writeHead(code, { "content-type": type, "content-security-policy": policy, "cache-control": "no-cache" }).end(body);
	if (files[pathname]) return send(200, files[pathname][1], readFileSync(join(dist, files[pathname][0])));
	if (pathname === "/page.json") return send(200, "application/json", JSON.stringify({ version: "0.1.0", private: false, session: `https://127.0.0.1:${options.port}/`, websocket: null, fingerprint: options.fingerprint || null, permit: { publish: ["**"], subscribe: ["**"] }, refused: null }));
	if (pathname === "/certificate.sha256" && options.fingerprint) return send(200, "text/plain", options.fingerprint);
	if (pathname !== "/status" || options.private) return send(404, "text/plain", "not found\n");
	if (!request.headers.accept?.includes("text/event-stream")) return send(200, "application/json", JSON.stringify(status()));
	response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
	const timer = setInterval(() => response.write(`event: status\ndata: ${JSON.stringify(status())}\n\n`), 1000);
	response.on("close", () => clearInterval(timer));
}

const rebuild = () => spawnSync(process.execPath, [join(here, "build.mjs")], { stdio: "inherit" });
if (options.watch) watch(join(here, "src"), rebuild);
createServer(answer).listen(Number(options.port), "127.0.0.1", () => console.log(`http://127.0.0.1:${options.port}/`));
