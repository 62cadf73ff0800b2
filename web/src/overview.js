// Statistics of the whole relay: head line, throughput, tiles, sessions.

import { attribute, byId, element, text } from "./dom.js";
import { bitrate, bytes, count, duration } from "./format.js";
import { Graph } from "./graph.js";
import { rights } from "./info.js";
import { List } from "./list.js";

const STATES = {
	connecting: "connecting",
	live: "live",
	lost: "reconnecting",
	private: "no statistics here",
	refused: "no statistics here",
};

const NOTICES = {
	private: "Statistics are only on the private listener.",
	refused: "The relay does not show its statistics to this page.",
};

/** A figure and its share of its limit. */
function tile(id, value, limit, part) {
	const node = byId(id);
	if (node.childElementCount === 0) node.replaceChildren(element("b"), element("small"), element("span", { className: "meter" }, element("i")));
	const [figure, small, meter] = node.children;
	text(figure, value);
	text(small, limit);
	meter.hidden = part === undefined;
	if (part !== undefined) meter.firstElementChild.style.transform = `scaleX(${Math.min(1, part)})`;
	meter.classList.toggle("high", part > 0.9);
}

const limited = (used, limit) => (limit ? [`of ${bytes(limit)}`, used / limit] : ["", undefined]);

/** The cells of a row are in the order of the headings in the page. */
function session(row, item) {
	const transport = { webtransport: "WebTransport", quic: "QUIC", websocket: "WebSocket", tcp: "TCP", unix: "Unix" };
	const cells = [
		item.remote,
		transport[item.transport] ?? item.transport,
		item.version,
		`/${item.path}`,
		duration(item.age_s),
		item.rtt_ms === null ? "–" : `${item.rtt_ms < 10 ? item.rtt_ms.toFixed(1) : Math.round(item.rtt_ms)} ms`,
		count(item.publishes),
		count(item.subscriptions),
		bitrate(item.in_bps),
		bitrate(item.out_bps),
	];
	cells.forEach((value, at) => text(row.children[at], value));
}

/** The read-only part of the page. */
export class Overview {
	#graph = new Graph(byId("graph"));
	#sessions = new List(byId("session-list"), {
		height: 28,
		most: 12,
		cells: 10,
		label: "Sessions",
		key: (item) => item.id,
		fill: session,
	});

	recolour() {
		this.#graph.recolour();
	}

	#state = "connecting";

	/** Shows the notice again, after the rights of this page have changed. */
	notice() {
		// With statistics, the publish form shows the rights.
		const words = NOTICES[this.#state] ? `${NOTICES[this.#state]} ${rights()}`.trim() : "";
		byId("notice").hidden = words === "";
		text(byId("notice"), words);
	}

	/** State of the statistics. */
	set state(state) {
		this.#state = state;
		const pill = byId("state");
		attribute(pill, "data-state", state);
		text(pill, STATES[state]);
		document.body.dataset.figures = state === "private" || state === "refused" ? "none" : "shown";
		this.notice();
	}

	/** Shows a snapshot; rates only if it `isEvent`. */
	show({ relay, load, traffic, sessions, sessions_total, broadcasts, broadcasts_total }, isEvent) {
		const workers = `${relay.workers} worker${relay.workers === 1 ? "" : "s"}`;
		text(byId("facts"), [relay.version, relay.name, `up ${duration(relay.uptime_s)}`, workers, relay.address === relay.name ? "" : relay.address].filter(Boolean).join("  ·  "));
		document.title = relay.name ? `${relay.name} · moq-relay` : "moq-relay";
		if (relay.draining) {
			attribute(byId("state"), "data-state", "draining");
			text(byId("state"), "draining");
		}
		if (isEvent) this.#traffic(traffic, relay);
		tile("tile-sessions", count(sessions_total), "");
		tile("tile-broadcasts", count(broadcasts_total), "");
		tile("tile-viewers", count(broadcasts.reduce((sum, one) => sum + one.viewers, 0)), broadcasts_total > broadcasts.length ? `of the first ${count(broadcasts.length)}` : "");
		tile("tile-cpu", load.cpu_cores.toFixed(2), `of ${relay.workers} core${relay.workers === 1 ? "" : "s"}`, load.cpu_cores / relay.workers);
		tile("tile-memory", bytes(load.memory_bytes), ...limited(load.memory_bytes, load.memory_limit_bytes));
		tile("tile-cache", bytes(load.cache_bytes), ...limited(load.cache_bytes, load.cache_limit_bytes));
		text(byId("sessions-count"), sessions_total > sessions.length ? `${count(sessions.length)} of ${count(sessions_total)}` : count(sessions_total));
		this.#sessions.items = sessions;
	}

	#traffic(traffic, relay) {
		text(byId("in-now"), bitrate(traffic.in_bps));
		text(byId("out-now"), bitrate(traffic.out_bps));
		// Exact values, for programs that read the page.
		byId("traffic").dataset.at = `${traffic.bytes_out}:${relay.uptime_s}`;
		byId("traffic").dataset.inBps = `${traffic.in_bps}`;
		byId("traffic").dataset.outBps = `${traffic.out_bps}`;
		this.#graph.push(Date.now(), traffic.in_bps, traffic.out_bps);
	}
}
