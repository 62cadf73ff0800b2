// What the relay says of itself: one snapshot to know whether it says anything, then a stream of them.

import { address } from "./info.js";

// The relay sends one a second.
const SILENCE_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 5000];

/** One snapshot; `parameters` narrow it. */
export async function snapshot(parameters) {
	const answer = await fetch(address("status", parameters), { headers: { accept: "application/json" }, cache: "no-store" });
	if (!answer.ok) throw Object.assign(new Error(`status ${answer.status}`), { code: answer.status });
	return answer.json();
}

/**
 * Follows the relay for as long as the page lives. `onState` hears `connecting`, `live`, `lost`, `private`
 * (this address does not say) or `refused` (it says only to who may know); `onStatus` each snapshot, and whether
 * it is an event, which alone has rates: they are since the event before.
 */
export function follow(onState, onStatus) {
	let failures = 0;
	let source;
	let silence;

	const again = (state, wait) => {
		source?.close();
		clearTimeout(silence);
		onState(state);
		setTimeout(begin, wait);
	};
	const lost = () => {
		failures += 1;
		again("lost", RETRY_MS[Math.min(failures, RETRY_MS.length) - 1]);
	};
	const heard = (status, isEvent) => {
		failures = 0;
		clearTimeout(silence);
		silence = setTimeout(lost, SILENCE_MS);
		onState("live");
		onStatus(status, isEvent);
	};
	const begin = async () => {
		try {
			heard(await snapshot(), false);
		} catch (error) {
			// A relay that does not say may be restarted with other settings: asked again, seldom.
			if (error.code === 404) return again("private", 30_000);
			if (error.code === 401 || error.code === 403) return again("refused", 30_000);
			return lost();
		}
		source = new EventSource(address("status"));
		source.addEventListener("status", (event) => heard(JSON.parse(event.data), true));
		source.onerror = lost;
	};
	onState("connecting");
	begin();
}
