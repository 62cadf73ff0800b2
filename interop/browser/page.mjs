// The page of the relay, operated like a person does.

import { statSync } from "node:fs";

import { check, eventually, moving, pause, same } from "./harness.mjs";

const README_BYTES = 300_000;
const HD_FRAME_BYTES = 40_000;
const LEAVES_MS = 2000;

const row = (page, path) => page.locator(`#broadcast-list .row[title="${path}"]:visible`);
const errors = (page) => page.said.filter(({ type }) => type === "error");

async function open(suite, relay, options) {
	const page = await suite.page(relay.http, options);
	await eventually("the page is live", async () => (await page.getAttribute("#state", "data-state")) === "live");
	return page;
}

/** Note over the picture; empty while there is none. */
export const note = async (page) => ((await page.isVisible("#watch-note")) ? page.textContent("#watch-note") : "");

/** Publishes the test pattern from a page. */
export async function publish(page, path, what = "Test pattern") {
	await page.fill("#publish-path", path);
	await page.getByRole("button", { name: what }).click();
	await eventually("it is published", () => page.isVisible("#publish-live"));
}

const carriedOver = (page, how) => eventually(`the page says ${how}`, async () => (await page.textContent("#watch-facts")).endsWith(`over${how}`), 3000);

/** Camera published from one page, watched in another. */
async function camera(suite, relay) {
	await publish(await open(suite, relay), "demo/camera", "Camera");
	const page = await open(suite, relay);
	await page.goto(`${relay.http}#watch=demo/camera`);
	await moving(page, "#watch-canvas");
}

async function loop(suite, relay) {
	const page = await open(suite, relay);
	await publish(page, "demo/loop");
	await row(page, "demo/loop").click();
	await page.click("#detail-watch");
	same(new URL(page.url()).hash, "#watch=demo/loop", "address");
	await moving(page, "#watch-canvas");
	await carriedOver(page, "WebTransport, moq-lite-05");
	await eventually("a latency is shown", async () => /^latency\d+ ms/.test((await page.textContent("#watch-facts")) ?? ""));
	await page.click("#publish-stop");
	const stopped = Date.now();
	await eventually("it left the list", async () => (await row(page, "demo/loop").count()) === 0, LEAVES_MS);
	check(Date.now() - stopped <= LEAVES_MS, "late");
	same(errors(page), [], "errors on the console");
}

async function shared(suite, relay) {
	const page = await open(suite, relay);
	await publish(page, "demo/shared");
	// Longer without a subscriber than a client library keeps a closed broadcast.
	await eventually("four groups", async () => /groups[4-9]/.test(await page.textContent("#publish-facts")));
	const other = await suite.page(`${relay.http}#watch=demo/shared`);
	await moving(other, "#watch-canvas");
	same([...errors(page), ...errors(other)], [], "errors on the console");
}

async function websocket(suite, relay) {
	const page = await suite.page("about:blank");
	await page.addInitScript(() => delete globalThis.WebTransport);
	await page.goto(relay.http);
	await publish(page, "demo/socket");
	await page.click("#publish-watch");
	await moving(page, "#watch-canvas");
	await carriedOver(page, "WebSocket, moq-lite-05");
	same(errors(page), [], "errors on the console");
}

/** Keyboard only. */
async function keyboard(suite, relay) {
	const page = await open(suite, relay);
	await page.keyboard.press("p");
	await eventually("p publishes", () => page.isVisible("#publish-live"));
	const path = await page.textContent("#publish-name");
	await eventually("it is in the list", async () => (await row(page, path).count()) === 1);
	await page.keyboard.press("/");
	await page.keyboard.type(path.slice(-4));
	await page.keyboard.press("ArrowDown");
	await page.keyboard.press("Enter");
	await eventually("Enter opens it", () => page.isVisible("#detail"));
	same(await page.textContent("#detail-title"), path, "title");
	await page.keyboard.press("w");
	await moving(page, "#watch-canvas");
	await page.keyboard.press("Escape");
	await eventually("Esc closes it", async () => !(await page.isVisible("#detail")));
	await page.keyboard.press("p");
	await eventually("p ends it", async () => !(await page.isVisible("#publish-live")));
	same(errors(page), [], "errors on the console");
}

/** The groups of a track arrive with all their frames. */
async function groups(suite, relay) {
	const page = await open(suite, relay);
	await publish(page, "demo/groups");
	await row(page, "demo/groups").click();
	await page.locator('#track-list .row[title^="video"]:visible').click();
	check(page.url().endsWith("#broadcast=demo/groups&track=video"), page.url());
	await eventually("whole groups of 60 frames", async () => {
		const whole = await page.locator('#group-list li[data-state="whole"] > span:nth-child(4)').allTextContents();
		return whole.filter((frames) => frames === "60").length >= 2;
	}, 20_000);
	same(errors(page), [], "errors on the console");
}

/** Narrow, dark, reduced motion: nothing overflows, everything has a label. */
async function narrow(suite, relay) {
	const page = await open(suite, relay, { viewport: { width: 360, height: 740 }, colorScheme: "dark", reducedMotion: "reduce" });
	await publish(page, "demo/narrow");
	await page.click("#publish-watch");
	await moving(page, "#watch-canvas");
	const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
	check(wide <= room, `${wide} px in a window of ${room}`);
	const nameless = await page.evaluate(() =>
		[...document.querySelectorAll("button, input, [role=listbox], [role=img]")]
			.filter((one) => !one.textContent.trim() && !one.getAttribute("aria-label") && !one.labels?.length)
			.map((one) => one.id || one.outerHTML.slice(0, 60)),
	);
	same(nameless, [], "without a name");
	const [background] = await page.evaluate(() => [getComputedStyle(document.body).backgroundColor]);
	check(/rgb\(1?\d, 1?\d, 1?\d\)/.test(background), `dark is ${background}`);
}

/** The page's outgoing rate matches the load generator's incoming rate. */
async function figures(suite, relay) {
	const page = await open(suite, relay);
	// Large frames: the page counts transport bytes, the load generator frame payload.
	const verb = relay.verb(["load", "hd", "--url", relay.https, "--subscribers", "8", "--window", "12s", "--ramp", "1s", "--json"]);
	const samples = [];
	let done;
	verb.done.then((out) => (done = out), (error) => (done = error));
	let before = null;
	await eventually("the load ends", async () => {
		const [at, bps] = await page.evaluate(() => [document.querySelector("#traffic").dataset.at, Number(document.querySelector("#traffic").dataset.outBps)]);
		if (at !== before) samples.push(bps);
		before = at;
		return done;
	}, 60_000);
	if (done instanceof Error) throw done;
	const { tally, seconds } = JSON.parse(done);
	same([tally.lost, tally.missing], [0, 0], "lost and missing");
	const theirs = (tally.delivered * HD_FRAME_BYTES * 8) / seconds;
	// The rate is lower before and after the window: those samples are left out.
	const steady = samples.filter((bps) => bps > theirs * 0.8).sort((a, b) => a - b);
	check(steady.length >= 8, `${steady.length} figures in twelve seconds of ${samples.length}`);
	const seen = steady.reduce((sum, bps) => sum + bps, 0) / steady.length;
	const says = `the page says ${(seen / 1e6).toFixed(2)} Mb/s, the load generator ${(theirs / 1e6).toFixed(2)} Mb/s`;
	check(Math.abs(seen / theirs - 1) < 0.05, says);
	console.log(`        ${says}`);
}

/** The screenshot in the README: a live broadcast that is watched. */
async function portrait(suite, relay, file) {
	const loads = ["load", "video", "--url", relay.https, "--subscribers", "40", "--window", "25s", "--ramp", "1s"];
	const verb = relay.verb(loads);
	verb.done.catch(() => {});
	const publisher = await open(suite, relay);
	await publish(publisher, "demo/pattern");
	const page = await open(suite, relay, { viewport: { width: 1280, height: 1000 }, colorScheme: "dark" });
	await pause(15_000);
	await page.goto(`${relay.http}#watch=demo/pattern`);
	await moving(page, "#watch-canvas");
	await carriedOver(page, "WebTransport, moq-lite-05");
	await eventually("it runs", async () => Number(await page.getAttribute("#watch", "data-fps")) > 25);
	await eventually("its figures", async () => /^video1[1-9]/.test(await page.locator('#track-list .row[title^="video"]:visible').textContent()));
	await page.evaluate(() => scrollTo(0, 0));
	await page.screenshot({ path: file });
	verb.child.kill("SIGTERM");
	const { size } = statSync(file);
	check(size < README_BYTES, `${file} has ${size} bytes`);
}

export async function page(suite, relay, screenshot) {
	await suite.case("page: publish, find, watch, stop; gone within two seconds", () => loop(suite, relay));
	await suite.case("page: a link opens the picture, also of what nobody has watched yet", () => shared(suite, relay));
	await suite.case("page: its camera is seen on another", () => camera(suite, relay));
	await suite.case("page: the loop over WebSocket", () => websocket(suite, relay));
	await suite.case("page: with keys alone", () => keyboard(suite, relay));
	await suite.case("page: groups of a track arrive", () => groups(suite, relay));
	await suite.case("page: 360 px, dark, still, everything named", () => narrow(suite, relay));
	await suite.case("page: throughput is what the load generator says, within 5 %", () => figures(suite, relay), 90_000);
	if (screenshot) await suite.case("page: its portrait", () => portrait(suite, relay, screenshot), 90_000);
}

