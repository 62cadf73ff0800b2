// The selection in the address: `#watch=PATH`, `#broadcast=PATH`, `#broadcast=PATH&track=NAME`.

// Slashes stay readable in a shared address.
const encode = (value) => encodeURIComponent(value).replaceAll("%2F", "/");

/** The token in the address of this page; null without one. */
export const token = () => new URLSearchParams(location.search).get("jwt") || null;

/** The selection in the address. */
export function read() {
	const said = new URLSearchParams(location.hash.slice(1));
	const watch = said.get("watch");
	return { path: watch ?? said.get("broadcast"), watch: watch !== null, track: said.get("track") };
}

/** The fragment for a selection. */
export function fragment({ path, watch = false, track = null }) {
	if (path === null) return "";
	const name = watch ? "watch" : "broadcast";
	return `#${name}=${encode(path)}${track === null ? "" : `&track=${encode(track)}`}`;
}

/** Writes the selection to the address; going back in the history closes it again. */
export function write(open) {
	const wanted = fragment(open);
	if (location.hash !== wanted) history.pushState(null, "", wanted || location.pathname + location.search);
}

/** An address to share, without the token: the receiver needs one of their own. */
export function share(path) {
	return `${location.origin}${location.pathname}${fragment({ path, watch: true })}`;
}
