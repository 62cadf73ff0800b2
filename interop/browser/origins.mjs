// Pages that may open sessions and read answers: those of `web.origins`, over both transports, and in development those
// of this machine.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { freePort, Relay, same } from "./harness.mjs";

/** Runs `work` with a configured relay whose `web.origins` lists this origin alone, and stops it. */
async function listing(binary, origin, work) {
	const folder = mkdtempSync(join(tmpdir(), "moq-origins-"));
	const port = await freePort();
	const file = join(folder, "relay.toml");
	const lines = [
		`drain_timeout = "1s"\n[server]\nbind = "127.0.0.1:${port}"`,
		`[web]\norigins = ["${origin}"]\nhttp.listen = "127.0.0.1:${port}"`,
		'[auth]\npublic = ""',
	];
	writeFileSync(file, lines.join("\n"));
	const relay = await new Relay(binary).begin([file], /listening for http/);
	Object.assign(relay, { http: `http://127.0.0.1:${port}/`, https: `https://127.0.0.1:${port}/` });
	relay.fingerprint = (await (await fetch(`${relay.http}certificate.sha256`)).text()).trim();
	try {
		return await work(relay);
	} finally {
		await relay.stop();
		rmSync(folder, { recursive: true });
	}
}

/** Outcome of an attempt of the page: "open" if the session stays, else "refused". */
const attempt = (page, relay, kind) =>
	page.evaluate(
		async ([at, fingerprint, carrier]) => {
			const stays = new Promise((resolve) => setTimeout(() => resolve("open"), 1500));
			if (carrier === "websocket") {
				const socket = new WebSocket(at.replace("http", "ws"), ["qmux-01.moq-lite-05"]);
				const ended = new Promise((resolve) => (socket.onerror = socket.onclose = () => resolve("refused")));
				return Promise.race([ended, stays]);
			}
			const value = Uint8Array.from(fingerprint.match(/../g), (byte) => Number.parseInt(byte, 16));
			const session = new WebTransport(at, { serverCertificateHashes: [{ algorithm: "sha-256", value }], protocols: ["moq-lite-05"] });
			const ended = session.closed.then(
				() => "refused",
				() => "refused",
			);
			return Promise.race([ended, stays]);
		},
		[kind === "websocket" ? relay.http : relay.https, relay.fingerprint, kind],
	);

export async function origins(suite, binary) {
	for (const kind of ["webtransport", "websocket"]) {
		await suite.case(`pages of origins that are not named are kept out over ${kind}`, async () => {
			const page = await suite.page(`${suite.site.base}/net034`);
			const said = [];
			for (const named of [suite.site.base, "https://app.example.com"]) {
				said.push(await listing(binary, named, (relay) => attempt(page, relay, kind)));
			}
			same(said, ["open", "refused"], "a page of a named origin, and of another");
		});
	}
	await suite.case("pages of another site reach nothing of a relay in development", async () => {
		const relay = await new Relay(binary).start();
		try {
			const own = await suite.page(`${suite.site.base}/net034`);
			const site = new URL(suite.site.base);
			site.hostname = "other.site.test";
			const other = await suite.page(`${site.origin}/net034`);
			const said = [];
			for (const page of [own, other]) said.push(await attempt(page, relay, "websocket"), await read(page, `${relay.http}announced`));
			same(said, ["open", 200, "refused", "blocked"], "a page of this machine, and of another site");
			// A site whose name resolves to the relay itself.
			const answer = await other.goto(relay.http.replace("127.0.0.1", "rebind.site.test"));
			same(answer.status(), 403, "a request for another host name");
		} finally {
			await relay.stop();
		}
	});
}

/** Status of an answer that the page may read, else "blocked". */
const read = (page, address) =>
	page.evaluate(async (url) => {
		try {
			return (await fetch(url)).status;
		} catch {
			return "blocked";
		}
	}, address);
