// Published libraries in a browser: every pair of them, against the verbs of the binary, over both transports.

import { check, eventually, moving, pause, same, sha256 } from "./harness.mjs";
import { block } from "./pages/shared.js";

const GROUPS = 6;
const FRAME = 10_000;
const SIZES = [1, 300, 1200, 70_000];

/** Groups that a subscriber must have received. */
const expected = Array.from({ length: GROUPS }, (_, group) => ({
	sequence: group,
	frames: SIZES.map((size, frame) => `${size}:${sha256(block(group, frame, size))}`),
}));

const all = Buffer.concat(expected.flatMap((_, group) => SIZES.map((size, frame) => block(group, frame, size))));

let paths = 0;
const freshPath = () => `browser/${++paths}`;

const ordered = (groups) => groups.toSorted((a, b) => a.sequence - b.sequence);

function agreed(page, version, transport) {
	same(page.session, { version, transport }, "session");
}

/** One page publishes, another reads to the end. */
async function between(suite, relay, publisher, subscriber, options, versions) {
	const transport = options.websocket ? "websocket" : "webtransport";
	const [from, to] = [await suite.client(publisher, relay, options), await suite.client(subscriber, relay, options)];
	agreed(from, versions[0], transport);
	agreed(to, versions[1], transport);
	const path = freshPath();
	const reading = to.evaluate((at) => client.subscribe(at), path);
	await from.evaluate(([at, groups, sizes]) => client.publish(at, groups, sizes), [path, GROUPS, SIZES]);
	// The publisher stays until the end has arrived: old versions do not name the last group, so the
	// relay waits for groups in flight before it passes the end on.
	same(ordered(await reading), expected, "groups");
	await from.evaluate(() => client.close());
	await to.evaluate(() => client.close());
}

/** Data published by the binary arrives in the page. */
async function fromVerb(suite, relay, name, options, version) {
	const page = await suite.client(name, relay, options);
	same(page.session.version, version, "version");
	const path = freshPath();
	const reading = page.evaluate((at) => client.subscribe(at), path);
	// A page sends no flow control by groups, so the rate is limited.
	const verb = relay.verb(["pub", "--frame-size", `${FRAME}`, "--group-frames", "2", "--rate", "400000", relay.https, path, "data", "-"]);
	const whole = all.subarray(0, all.byteLength - (all.byteLength % FRAME));
	verb.child.stdin.write(whole);
	// The end is sent after a pause: these libraries drop groups in flight when a track ends.
	await eventually("all of it was sent", () => verb.child.stdin.writableLength === 0);
	await pause((whole.byteLength / 400_000) * 1000 + 1000);
	verb.child.stdin.end();
	const frames = ordered(await reading).flatMap((group) => group.frames);
	await verb.done;
	const parts = Array.from({ length: whole.byteLength / FRAME }, (_, at) => whole.subarray(at * FRAME, (at + 1) * FRAME));
	same(frames, parts.map((part) => `${part.byteLength}:${sha256(part)}`), "frames");
	await page.evaluate(() => client.close());
}

/** Data published by the page is written by the binary. */
async function toVerb(suite, relay, name, options, version) {
	const page = await suite.client(name, relay, options);
	same(page.session.version, version, "version");
	const path = freshPath();
	const verb = relay.verb(["sub", relay.https, path, "data"]);
	await page.evaluate(([at, groups, sizes]) => client.publish(at, groups, sizes), [path, GROUPS, SIZES]);
	const got = await verb.done;
	await page.evaluate(() => client.close());
	check(Buffer.compare(got, all) === 0, `${got.byteLength} bytes came out of ${all.byteLength}, or others`);
}

export async function clients(suite, relay) {
	const current = ["net 0.3.4", "net 0.2.8"];
	for (const websocket of [false, true]) {
		const over = websocket ? "WebSocket" : "WebTransport";
		for (const publisher of current) {
			for (const subscriber of current) {
				await suite.case(`${over}: ${publisher} to ${subscriber}, bytes as they were, moq-lite-05`, () =>
					between(suite, relay, publisher, subscriber, { websocket }, ["moq-lite-05", "moq-lite-05"]),
				);
			}
		}
		for (const name of current) {
			await suite.case(`${over}: pub to ${name}`, () => fromVerb(suite, relay, name, { websocket }, "moq-lite-05"));
			await suite.case(`${over}: ${name} to sub`, () => toVerb(suite, relay, name, { websocket }, "moq-lite-05"));
		}
	}
	// They offer no version on a WebSocket, so SETUP negotiates it.
	for (const old of ["net 0.1.9", "lite 0.2.2"]) {
		await suite.case(`WebSocket: ${old} to itself, in moq-lite-02`, () => between(suite, relay, old, old, { websocket: true }, ["moq-lite-02", "moq-lite-02"]));
		await suite.case(`WebSocket: ${old} to net 0.3.4`, () => between(suite, relay, old, "net 0.3.4", { websocket: true }, ["moq-lite-02", "moq-lite-05"]));
		await suite.case(`WebSocket: net 0.3.4 to ${old}`, () => between(suite, relay, "net 0.3.4", old, { websocket: true }, ["moq-lite-05", "moq-lite-02"]));
	}
}

export async function components(suite, relay, screenshot) {
	const media = (query) => `${suite.site.base}/media?${new URLSearchParams({ url: relay.http, ...query })}`;
	for (const websocket of [false, true]) {
		const over = websocket ? "WebSocket" : "WebTransport";
		await suite.case(`${over}: @moq/publish shows its camera to @moq/watch`, async () => {
			const path = `camera/${websocket}.hang`;
			const open = async (query) => {
				const page = await suite.page("about:blank");
				if (websocket) await page.addInitScript(() => delete globalThis.WebTransport);
				await page.goto(media(query));
				return page;
			};
			await open({ publish: path });
			const viewer = await open({ watch: path });
			await moving(viewer, "#screen");
			if (screenshot && !websocket) await viewer.screenshot({ path: screenshot });
			const errors = viewer.said.filter(({ type }) => type === "error");
			same(errors, [], "errors on the console");
		});
	}
	await suite.case("@moq/publish shows its camera on the page of the relay", async () => {
		await suite.page(media({ publish: "camera/there.hang" }));
		const page = await suite.page(`${relay.http}#watch=camera/there.hang`);
		await moving(page, "#watch-canvas");
	});
	await suite.case("the page's test pattern is played by @moq/watch", async () => {
		const page = await suite.page(relay.http);
		await page.fill("#publish-path", "pattern.hang");
		await page.click("#publish-pattern");
		await eventually("it is published", () => page.isVisible("#publish-live"));
		const viewer = await suite.page(media({ watch: "pattern.hang" }));
		await moving(viewer, "#screen");
	});
}
