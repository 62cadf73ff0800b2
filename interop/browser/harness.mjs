// Shared parts of the suites: a relay, a browser, pages, and one line per case.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { createSocket } from "node:dgram";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const START_MS = 20_000;
const STOP_MS = 10_000;
const CASE_MS = 60_000;
const CERTIFICATE = /certificate\s+([0-9a-f]{64})/;
const FLAGS = [
	"--no-sandbox",
	"--disable-gpu",
	"--no-first-run",
	"--disable-background-networking",
	"--disable-component-update",
	"--disable-sync",
	"--use-fake-device-for-media-stream",
	"--use-fake-ui-for-media-stream",
	// Names of other sites, which resolve to this machine.
	"--host-resolver-rules=MAP *.site.test 127.0.0.1",
];

/** The client libraries under test: label, bundle name, package and driver page. */
export const CLIENTS = {
	"net 0.3.4": { file: "net034", module: "net-034", driver: "new.js" },
	"net 0.2.8": { file: "net028", module: "net-028", driver: "new.js" },
	"net 0.1.9": { file: "net019", module: "net-019", driver: "old.js" },
	"lite 0.2.2": { file: "lite022", module: "@moq/lite", driver: "old.js" },
};

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `condition` returns a truthy value, and returns it. */
export async function eventually(what, condition, ms = 15_000) {
	const end = Date.now() + ms;
	for (;;) {
		const found = await condition();
		if (found) return found;
		if (Date.now() > end) throw new Error(`not within ${ms / 1000} s: ${what}`);
		await pause(50);
	}
}

export function same(found, expected, what) {
	const [a, b] = [JSON.stringify(found), JSON.stringify(expected)];
	if (a === b) return;
	// First difference, with some context.
	let at = 0;
	while (a[at] === b[at]) at += 1;
	const near = (text) => text.slice(Math.max(0, at - 60), at + 120);
	throw new Error(`${what}: …${near(a)}… instead of …${near(b)}…`);
}

export function check(condition, message) {
	if (!condition) throw new Error(message);
}

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

/** Finds a port that is free for TCP and UDP. */
export async function freePort() {
	for (;;) {
		const tcp = createServer();
		await new Promise((resolve) => tcp.listen(0, "127.0.0.1", resolve));
		const { port } = tcp.address();
		const udp = createSocket("udp4");
		const free = await new Promise((resolve) => udp.once("error", () => resolve(false)).bind(port, "127.0.0.1", () => resolve(true)));
		await new Promise((resolve) => tcp.close(resolve));
		if (free) {
			await new Promise((resolve) => udp.close(resolve));
			return port;
		}
	}
}

/** A relay as started by default: one process, HTTP on the port number of QUIC. */
export class Relay {
	output = "";

	constructor(binary) {
		this.binary = binary;
	}

	/** Starts the process; returns the match of `ready` in its output. */
	async #launch(ready) {
		this.output = "";
		this.process = spawn(this.binary, this.args, { stdio: ["ignore", "pipe", "pipe"] });
		for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (text) => (this.output += text));
		return eventually(
			`the relay prints ${ready}`,
			() => {
				check(this.process.exitCode === null, `the relay ended: ${this.output}`);
				return ready.exec(this.output);
			},
			START_MS,
		);
	}

	/** Starts with these arguments, until `ready` matches the output. */
	async begin(args, ready) {
		this.args = args;
		await this.#launch(ready);
		return this;
	}

	/** Ends the process by this signal, and starts it again with the same arguments. */
	async restart(signal) {
		const ended = new Promise((resolve) => this.process.once("exit", resolve));
		this.process.kill(signal);
		await Promise.race([ended, pause(STOP_MS).then(() => Promise.reject(new Error(`the relay does not end by ${signal}`)))]);
		this.fingerprint = (await this.#launch(CERTIFICATE))[1];
	}

	async start(...more) {
		this.port = await freePort();
		this.args = ["--bind", `127.0.0.1:${this.port}`, ...more];
		this.fingerprint = (await this.#launch(CERTIFICATE))[1];
		this.http = `http://127.0.0.1:${this.port}/`;
		this.https = `https://127.0.0.1:${this.port}/`;
		return this;
	}

	/** Runs a verb of the binary; returns its output after a successful end. */
	verb(args, input) {
		const child = spawn(this.binary, [...args, "--fingerprint", this.fingerprint], { stdio: ["pipe", "pipe", "pipe"] });
		const out = [];
		let err = "";
		child.stdout.on("data", (bytes) => out.push(bytes));
		child.stderr.on("data", (text) => (err += text));
		if (input !== undefined) child.stdin.end(input);
		const done = new Promise((resolve, reject) => {
			child.on("error", reject);
			child.on("close", (code) => (code === 0 ? resolve(Buffer.concat(out)) : reject(new Error(`${args[0]}: status ${code}: ${err}`))));
		});
		return { child, done };
	}

	async stop() {
		if (this.process.exitCode !== null) throw new Error(`the relay ended by itself: ${this.process.exitCode}`);
		const ended = new Promise((resolve) => this.process.once("exit", resolve));
		this.process.kill("SIGTERM");
		const code = await Promise.race([ended, pause(STOP_MS).then(() => "not at all")]);
		if (code !== 0) {
			this.process.kill("SIGKILL");
			throw new Error(`the relay ended with ${code}`);
		}
	}
}

const PAGE = (script) => `<!doctype html><meta charset="utf-8"><title>test</title><body><script type="module" src="/${script}.js"></script>`;

/** Bundles the test pages and serves them on a port of their own, like an application. */
async function serve() {
	const folder = mkdtempSync(join(tmpdir(), "moq-browser-"));
	const bundles = Object.values(CLIENTS).map(({ file, module, driver }) => ({ file, entry: `pages/${driver}`, alias: { moq: module } }));
	bundles.push({ file: "media", entry: "pages/media.js", alias: {} });
	for (const { file, entry, alias } of bundles) {
		await build({
			absWorkingDir: here,
			entryPoints: { [file]: entry },
			outdir: folder,
			bundle: true,
			splitting: file === "media",
			format: "esm",
			target: "es2022",
			alias,
			logLevel: "error",
			loader: { ".css": "text" },
			chunkNames: `${file}-[hash]`,
		});
	}
	const server = createHttp((request, response) => {
		const name = new URL(request.url, "http://localhost").pathname.slice(1);
		if (/^[\w-]+\.js$/.test(name)) {
			try {
				return response.writeHead(200, { "content-type": "text/javascript" }).end(readFileSync(join(folder, name)));
			} catch {
				return response.writeHead(404).end();
			}
		}
		if (/^\w+$/.test(name)) return response.writeHead(200, { "content-type": "text/html" }).end(PAGE(name));
		// Browsers request an icon by themselves.
		response.writeHead(name === "favicon.ico" ? 204 : 404).end();
	});
	await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
	return {
		base: `http://127.0.0.1:${server.address().port}`,
		close() {
			server.close();
			server.closeAllConnections();
			rmSync(folder, { recursive: true });
		},
	};
}

/** Browser, test pages, and the cases that ran. */
export class Suite {
	#only;
	#pages = [];
	passed = 0;
	failed = 0;

	constructor(only) {
		this.#only = only;
	}

	async start(executable) {
		this.site = await serve();
		this.browser = await chromium.launch({ executablePath: executable, headless: true, args: FLAGS });
	}

	async stop() {
		await this.browser.close();
		this.site.close();
	}

	/** A page in its own context, so that no state is shared; its console output is kept. */
	async page(address, options = {}) {
		const context = await this.browser.newContext(options);
		const page = await context.newPage();
		page.said = [];
		page.on("console", (message) => page.said.push({ type: message.type(), text: message.text() }));
		page.on("pageerror", (error) => page.said.push({ type: "error", text: `${error}` }));
		this.#pages.push(context);
		await page.goto(address);
		return page;
	}

	/** A page with a client library, connected. */
	async client(name, relay, { websocket = false } = {}) {
		const page = await this.page(`${this.site.base}/${CLIENTS[name].file}`);
		await page.waitForFunction("globalThis.client");
		const address = websocket ? relay.http : relay.https;
		page.session = await page.evaluate(([at, hash, socket]) => client.connect(at, hash, socket), [address, websocket ? null : relay.fingerprint, websocket]);
		return page;
	}

	/** Runs a case, unless the options exclude it. */
	async case(name, work, ms = CASE_MS) {
		if (!name.includes(this.#only)) return;
		const began = Date.now();
		const seconds = () => ((Date.now() - began) / 1000).toFixed(1);
		let timer;
		const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not done in ${ms / 1000} s`)), ms)));
		try {
			await Promise.race([work(), late]);
			this.passed += 1;
			console.log(`ok      ${name} (${seconds()} s)`);
		} catch (error) {
			this.failed += 1;
			console.log(`FAILED  ${name} (${seconds()} s)\n        ${error.message.split("\n").slice(0, 6).join("\n        ")}`);
			for (const context of this.#pages) {
				for (const page of context.pages()) {
					for (const { type, text } of page.said.filter((one) => one.type === "error" || one.type === "warning").slice(-4)) console.log(`        ${type}: ${text}`);
				}
			}
		} finally {
			clearTimeout(timer);
			for (const context of this.#pages.splice(0)) await context.close();
		}
	}
}

/** The current picture of a canvas: number of colours, and a hash. */
export function picture(page, selector) {
	return page.evaluate(
		(which) =>
			new Promise((resolve) => {
				requestAnimationFrame(() => {
					const canvas = document.querySelector(which);
					const copy = new OffscreenCanvas(64, 36);
					const to = copy.getContext("2d", { willReadFrequently: true });
					to.drawImage(canvas, 0, 0, 64, 36);
					const { data } = to.getImageData(0, 0, 64, 36);
					const colours = new Set();
					let hash = 0;
					for (let at = 0; at < data.length; at += 4) {
						const colour = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2];
						colours.add(colour);
						hash = (Math.imul(hash, 31) + colour) | 0;
					}
					resolve({ colours: colours.size, hash });
				});
			}),
		selector,
	);
}

/** Waits for a picture that is not empty and keeps changing. */
export async function moving(page, selector) {
	const first = await eventually(`a picture in ${selector}`, async () => {
		const now = await picture(page, selector);
		return now.colours > 20 && now;
	}, 25_000);
	const seen = new Set([first.hash]);
	await eventually(`the picture in ${selector} moves`, async () => {
		seen.add((await picture(page, selector)).hash);
		return seen.size > 4;
	});
}
