// The page of the relay, used as a person uses it.

import { statSync } from "node:fs";

import { check, eventually, moving, pause, same } from "./harness.mjs";

const README_BYTES = 300_000;
const LEAVES_MS = 2000;

const row = (page, path) => page.locator(`#broadcast-list .row[title="${path}"]:visible`);
const errors = (page) => page.said.filter(({ type }) => type === "error");

async function open(suite, relay, options) {
	const page = await suite.page(relay.http, options);
	await eventually("the page is live", async () => (await page.getAttribute("#state", "data-state")) === "live");
	return page;
}

/** Publishes the test pattern from a page. */
async function publish(page, path) {
	await page.fill("#publish-path", path);
	await page.click("#publish-pattern");
	await eventually("it is published", () => page.isVisible("#publish-live"));
}

async function loop(suite, relay) {
	const page = await open(suite, relay);
	await publish(page, "demo/loop");
	await row(page, "demo/loop").click();
	await page.click("#detail-watch");
	same(new URL(page.url()).hash, "#watch=demo/loop", "address");
	await moving(page, "#watch-canvas");
	const over = await page.textContent("#watch-facts");
	check(over.includes("WebTransport, moq-lite-05"), `over ${over}`);
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
	const other = await suite.page(`${relay.http}#watch=demo/shared`);
	await moving(other, "#watch-canvas");
	await other.goBack().catch(() => {});
	same([...errors(page), ...errors(other)], [], "errors on the console");
}

async function websocket(suite, relay) {
	const page = await suite.page("about:blank");
	await page.addInitScript(() => delete globalThis.WebTransport);
	await page.goto(relay.http);
	await publish(page, "demo/socket");
	await page.click("#publish-watch");
	await moving(page, "#watch-canvas");
	const over = await page.textContent("#watch-facts");
	check(over.includes("WebSocket, moq-lite-05"), `over ${over}`);
	same(errors(page), [], "errors on the console");
}

/** Nothing but keys. */
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

/** A track's groups come with as many frames as were made. */
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

/** Narrow, dark and still: nothing sticks out, everything is named. */
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

/** What the page says goes out is what the load generator says came in. */
async function figures(suite, relay) {
	const page = await open(suite, relay);
	const verb = relay.verb(["load", "video", "--url", relay.https, "--subscribers", "60", "--window", "12s", "--ramp", "2s", "--json"]);
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
	const report = JSON.parse(done);
	// The middle of what was seen lies in the window.
	const steady = samples.toSorted((a, b) => a - b).slice(Math.floor(samples.length * 0.6), Math.floor(samples.length * 0.9));
	const seen = steady.reduce((sum, bps) => sum + bps, 0) / steady.length;
	const theirs = delivered(report);
	check(Math.abs(seen / theirs - 1) < 0.05, `the page says ${(seen / 1e6).toFixed(2)} Mb/s, the load generator ${(theirs / 1e6).toFixed(2)} Mb/s`);
}

/** Bits a second that reached viewers, of a report of the load generator. */
function delivered(report) {
	return report.bits_per_second;
}

/** The picture in the README: something is live, and it is watched. */
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
	await page.evaluate(() => scrollTo(0, 0));
	await page.screenshot({ path: file });
	verb.child.kill("SIGTERM");
	const { size } = statSync(file);
	check(size < README_BYTES, `${file} has ${size} bytes`);
}

export async function page(suite, relay, screenshot) {
	await suite.case("page: publish, find, watch, stop; gone within two seconds", () => loop(suite, relay));
	await suite.case("page: a link opens the picture", () => shared(suite, relay));
	await suite.case("page: the loop over WebSocket", () => websocket(suite, relay));
	await suite.case("page: with keys alone", () => keyboard(suite, relay));
	await suite.case("page: groups of a track arrive", () => groups(suite, relay));
	await suite.case("page: 360 px, dark, still, everything named", () => narrow(suite, relay));
	await suite.case("page: throughput is what the load generator says, within 5 %", () => figures(suite, relay), 90_000);
	if (screenshot) await suite.case("page: its portrait", () => portrait(suite, relay, screenshot), 90_000);
}

