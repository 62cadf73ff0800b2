// The page of a relay: its statistics, and publishing and watching over it.

import { Broadcasts } from "./broadcasts.js";
import { Detail } from "./detail.js";
import { byId, text } from "./dom.js";
import { info, known, onInfo, suggestion } from "./info.js";
import { Overview } from "./overview.js";
import { PublishForm } from "./publishing.js";
import * as route from "./route.js";
import { follow } from "./status.js";
import { theme } from "./theme.js";

const overview = new Overview();
let open = { path: null, watch: false, track: null };

const broadcasts = new Broadcasts((path) => show({ path, watch: false, track: null }));
const detail = new Detail({
	open: (change) => show({ ...open, ...change }),
	close: () => show({ path: null, watch: false, track: null }),
});
const publishing = new PublishForm((path) => show({ path, watch: true, track: null }));

/** Opens a selection and writes it to the address. */
function show(wanted) {
	route.write(wanted);
	apply(wanted);
}

function apply(wanted) {
	const before = open;
	open = wanted;
	broadcasts.chosen = open.path;
	detail.show(open);
	if (before.path !== null && open.path === null) broadcasts.focus();
}

/** Complete commands for the relay's QUIC address; a generated certificate is pinned. */
function hello() {
	const { session, fingerprint } = known() ?? {};
	const pinned = fingerprint ? ` --fingerprint ${fingerprint}` : "";
	const url = session ?? `https://${location.host}/`;
	// The token itself stays out of text that people copy and share.
	const address = route.token() === null ? url : `"${url}?jwt=$TOKEN"`;
	const path = suggestion("hello");
	text(byId("hello-pub"), `yes hello | moq-relay pub --no-wait --rate 1000 --lines ${address} ${path} words${pinned}`);
	text(byId("hello-sub"), `moq-relay sub ${address} ${path} words${pinned}`);
}

hello();
onInfo(() => {
	hello();
	overview.notice();
});
// Every session asks as well, so a failure here is repaired by the first session.
const ask = () => info().catch(() => {});
ask();
theme(() => overview.recolour());
addEventListener("popstate", () => apply(route.read()));
addEventListener("hashchange", () => apply(route.read()));

let heard = false;
let before = "connecting";
follow(
	(state) => {
		// Addresses and rights may differ after a restart.
		if (before === "lost" && state !== "lost") ask();
		before = state;
		overview.state = state;
		// Announcements work without statistics.
		broadcasts.announced = state === "private" || state === "refused";
		if (state === "lost" && !heard) text(byId("foot"), "The relay does not answer.");
	},
	(status, isEvent) => {
		heard = true;
		text(byId("foot"), `moq-relay ${status.relay.version}`);
		overview.show(status, isEvent);
		broadcasts.status = status;
		detail.status = status;
	},
);

addEventListener("keydown", (event) => {
	const typing = event.target.closest?.("input, textarea, select");
	if (event.key === "Escape") {
		if (typing && typing.value !== "" && typing.id === "filter") {
			typing.value = "";
			typing.dispatchEvent(new Event("input"));
		} else if (typing) typing.blur();
		else if (open.path !== null) show({ path: null, watch: false, track: null });
		return;
	}
	if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
	if (event.key === "/") byId("filter").focus();
	else if (event.key === "w" && open.path !== null) show({ ...open, watch: !open.watch });
	else if (event.key === "p") publishing.toggle();
	else return;
	event.preventDefault();
});
byId("filter").addEventListener("keydown", (event) => {
	if (event.key !== "ArrowDown" && event.key !== "Enter") return;
	event.preventDefault();
	broadcasts.focus();
});

apply(route.read());
