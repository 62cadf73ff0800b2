// The relay's status: one snapshot to see whether it is available, then a stream.

import { address } from "./info.js";

// The relay sends one event per second.
const SILENCE_MS = 5000;
const RETRY_MS = [500, 1000, 2000, 5000];

/** One snapshot; `parameters` narrow it. */
export async function snapshot(parameters) {
	const answer = await fetch(address("status", parameters), { headers: { accept: "application/json" }, cache: "no-store" });
	if (!answer.ok) throw Object.assign(new Error(`status ${answer.status}`), { code: answer.status });
	return answer.json();
}

/**
 * Follows the status for the life of the page. `onState` is called with `connecting`, `live`, `lost`, `private`
 * (not available at this address) or `refused` (the rights do not allow it); `onStatus` with each snapshot, and whether
 * it is an event, which alone has rates: since the previous event.
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
			// The relay may be restarted with other settings: asked again, at long intervals.
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
