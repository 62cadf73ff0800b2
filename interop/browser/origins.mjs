// Pages that may open sessions and read answers: those of `web.origins`, over both carriers, and in development those
// of this machine.

import { Relay, same } from "./harness.mjs";

/** How an attempt of the page ends: "open" if the session stays, else "refused". */
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
				const relay = await new Relay(binary).start("--web-origins", named);
				try {
					said.push(await attempt(page, relay, kind));
				} finally {
					await relay.stop();
				}
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
			// A site whose name leads to the relay itself.
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
