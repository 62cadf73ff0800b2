// The page of a relay that is restarted, with a drain and by SIGKILL.

import { check, eventually, moving, Relay, same } from "./harness.mjs";
import { note, publish } from "./page.mjs";

// The browser gives up an unanswered session after its idle timeout.
const BACK_MS = 40_000;

const facts = (page) => page.textContent("#publish-facts");
const announced = (page) => eventually("the page says that it is announced", async () => /^announcedyes/.test(await facts(page)), BACK_MS);

/** A publisher and a viewer reconnect by themselves after the relay is back. */
async function restarted(suite, binary, signal) {
	const relay = await new Relay(binary).start("--drain-timeout", "1s");
	try {
		const publisher = await suite.page(relay.http);
		await publish(publisher, "demo/restart");
		await announced(publisher);
		const viewer = await suite.page(`${relay.http}#watch=demo/restart`);
		await moving(viewer, "#watch-canvas");
		const before = relay.fingerprint;
		await relay.restart(signal);
		check(relay.fingerprint !== before, "the restarted relay shows the same certificate");
		const listed = await suite.page(relay.http);
		await eventually("the relay lists it", async () => (await listed.locator('#broadcast-list .row[title="demo/restart"]').count()) === 1, BACK_MS);
		await announced(publisher);
		await eventually("the viewer has no trouble", async () => (await note(viewer)) === "", BACK_MS);
		await moving(viewer, "#watch-canvas");
		for (const [page, at] of [[publisher, "#publish-facts"], [viewer, "#watch-facts"]]) {
			// Both are tried, WebSocket 2 s later: after a restart either may be first.
			await eventually("it is carried again", async () => /over(WebTransport|WebSocket), moq-lite-0\d$/.test(await page.textContent(at)));
		}
		same(await publisher.textContent("#publish-note"), "", "note of the publisher");
	} finally {
		await relay.stop();
	}
}

export async function restart(suite, binary) {
	for (const signal of ["SIGTERM", "SIGKILL"]) {
		await suite.case(`page: publishes and plays again after a restart by ${signal}`, () => restarted(suite, binary, signal), 120_000);
	}
}
