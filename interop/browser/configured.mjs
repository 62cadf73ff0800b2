// The page of a relay with a configuration file: QUIC, HTTP and the private listener have their own ports, and not
// every path is allowed.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { check, eventually, freePort, moving, Relay, same } from "./harness.mjs";
import { note, publish } from "./page.mjs";

const notice = (page) => page.textContent("#publish-note");
const carriedOver = (page, facts, how) => eventually(`${facts} ends with ${how}`, async () => (await page.textContent(facts)).endsWith(`over${how}`));

/** Runs `work` with a relay of this configuration, and stops it. `more` is added to the file. */
async function configured(binary, { page = true, more = "" }, work) {
	const folder = mkdtempSync(join(tmpdir(), "moq-configured-"));
	const [quic, http, internal] = [await freePort(), await freePort(), await freePort()];
	const file = join(folder, "relay.toml");
	const lines = [
		`drain_timeout = "1s"\n[server]\nbind = "127.0.0.1:${quic}"`,
		`[tls]\ngenerate = ["localhost"]`,
		`[web]\npage = ${page}\nhttp.listen = "127.0.0.1:${http}"`,
		`[internal]\nlisten = "127.0.0.1:${internal}"`,
		more,
	];
	writeFileSync(file, lines.join("\n"));
	const relay = await new Relay(binary).begin([file], /listening for internal/);
	Object.assign(relay, { quic, http: `http://127.0.0.1:${http}/`, internal: `http://127.0.0.1:${internal}/` });
	try {
		await work(relay);
	} finally {
		await relay.stop();
		rmSync(folder, { recursive: true });
	}
}

const PUBLIC = '[auth]\npublic = "anon"';

/** The whole loop at one address of the relay, over WebTransport at the port of QUIC. */
async function loop(suite, relay, address) {
	const page = await suite.page(address);
	await eventually("a path that is allowed is suggested", async () => (await page.inputValue("#publish-path")).startsWith("anon/"));
	const command = await page.textContent("#hello-pub");
	check(command.includes(` https://127.0.0.1:${relay.quic}/ anon/hello words`), command);
	await publish(page, "anon/loop");
	await eventually("it is announced", async () => (await page.textContent("#publish-facts")).startsWith("announcedyes"));
	await page.click("#publish-watch");
	await moving(page, "#watch-canvas");
	for (const facts of ["#publish-facts", "#watch-facts"]) await carriedOver(page, facts, "WebTransport, moq-lite-05");
	// The browser logs that the public listener has no statistics.
	const errors = page.said.filter(({ type, text }) => type === "error" && !text.includes("status of 404"));
	same(errors, [], "errors on the console");
	return page;
}

async function everywhere(suite, binary) {
	await configured(binary, { more: PUBLIC }, async (relay) => {
		const open = await loop(suite, relay, relay.http);
		same(await open.getAttribute("#state", "data-state"), "private", "statistics at the public address");
		const words = await open.textContent("#notice");
		check(words.includes("private listener") && words.includes("anon/**"), words);
		await open.click("#publish-stop");
		const inside = await loop(suite, relay, relay.internal);
		await eventually("statistics at the private address", async () => (await inside.getAttribute("#state", "data-state")) === "live");
		await eventually("its sessions are listed", async () => /WebTransport/.test(await inside.textContent("#session-list")));
	});
}

async function alone(suite, binary) {
	await configured(binary, { page: false, more: PUBLIC }, async (relay) => {
		same((await fetch(relay.http)).status, 404, "status of the public page");
		same((await fetch(`${relay.http}page.json`)).status, 404, "status of its addresses");
		await loop(suite, relay, relay.internal);
	});
}

async function socket(suite, binary) {
	await configured(binary, { page: false, more: PUBLIC }, async (relay) => {
		const page = await suite.page("about:blank");
		await page.addInitScript(() => delete globalThis.WebTransport);
		await page.goto(relay.internal);
		await publish(page, "anon/socket");
		await page.click("#publish-watch");
		await moving(page, "#watch-canvas");
		await carriedOver(page, "#watch-facts", "WebSocket, moq-lite-05");
	});
}

async function forbidden(suite, binary) {
	await configured(binary, { more: PUBLIC }, async (relay) => {
		const page = await suite.page(relay.http);
		await page.fill("#publish-path", "demo/forbidden");
		await page.click("#publish-pattern");
		await eventually("the page says why", async () => /Not published.*demo\/forbidden.*Allowed: anon\/\*\*/.test(await notice(page)));
		check(!(await page.isVisible("#publish-live")), "it is shown as live");
		await page.goto(`${relay.http}#watch=demo/forbidden`);
		await page.reload();
		await eventually("the page says that it may not be watched", async () => /watch “demo\/forbidden”.*Allowed: anon/.test(await note(page)));
	});
}

async function unlisted(suite, binary) {
	await configured(binary, { more: PUBLIC }, async (relay) => {
		const page = await suite.page("about:blank");
		// A relay that does not report the rights, and drops the announcement.
		await page.route("**/page.json", async (route) => {
			try {
				const answer = await route.fetch();
				await route.fulfill({ response: answer, json: { ...(await answer.json()), permit: null } });
			} catch {
				// The relay has stopped; the page retries until it is closed.
				await route.abort().catch(() => {});
			}
		});
		await page.goto(relay.http);
		await publish(page, "demo/unlisted");
		await eventually("the page says that it is not announced", async () => /^Not announced: .*demo\/unlisted/.test(await notice(page)), 30_000);
		check(/^announcedno.*asked for–/.test(await page.textContent("#publish-facts")), "its facts");
		same(await page.getAttribute("#publish-dot", "data-state"), "refused", "dot");
	});
}

async function refused(suite, binary) {
	await configured(binary, { more: PUBLIC }, async (relay) => {
		const page = await suite.page(`${relay.http}?jwt=none`);
		await eventually("the page says why it gets no session", async () => /refuses sessions of this page: (unauthorized|malformed token)/.test(await page.textContent("#notice")));
		check(await page.isDisabled("#publish-pattern"), "the test pattern can be published");
	});
}

async function bare(suite, relay) {
	const verb = relay.verb(["pub", "--no-wait", "--rate", "1000", "--lines", relay.https, "bare", "words"]);
	verb.done.catch(() => {});
	const writing = setInterval(() => verb.child.stdin.write("hello\n"), 100);
	try {
		const page = await suite.page(`${relay.http}#watch=bare`);
		await eventually("the page says that there is no catalog", async () => /catalog/.test(await note(page)));
	} finally {
		clearInterval(writing);
		verb.child.kill("SIGTERM");
	}
}

export async function configuration(suite, binary, relay) {
	await suite.case("configured page: publishes and plays at both addresses", () => everywhere(suite, binary), 90_000);
	await suite.case("configured page: the private one alone", () => alone(suite, binary));
	await suite.case("configured page: WebSocket from the private one", () => socket(suite, binary));
	await suite.case("configured page: a forbidden path is named", () => forbidden(suite, binary));
	await suite.case("configured page: what is not announced is said", () => unlisted(suite, binary));
	await suite.case("configured page: a refused token is named", () => refused(suite, binary));
	await suite.case("page: a broadcast without a catalog is named", () => bare(suite, relay));
}
