// Numbers for people: three significant digits, one unit, no jumping widths.

const significant = (n) => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2));

/** A number with a prefix, of `base` 1000 or 1024. */
function scaled(n, base, units) {
	let value = Math.max(0, n || 0);
	let unit = 0;
	// A value that would be rounded up to the base is shown in the next unit.
	while (value >= base - 0.5 && unit < units.length - 1) {
		value /= base;
		unit += 1;
	}
	return unit === 0 ? `${Math.round(value)} ${units[0]}` : `${significant(value)} ${units[unit]}`;
}

/** Bits per second. */
export const bitrate = (n) => scaled(n, 1000, ["b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s"]);

/** Bytes, in powers of 1024. */
export const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);

/** A whole number with separated thousands. */
export const count = (n) => Math.round(n || 0).toLocaleString("en");

/** A duration, in its two largest units. */
export function duration(seconds) {
	const s = Math.max(0, Math.floor(seconds || 0));
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} m ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} m`;
	return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** Milliseconds, with useful precision. */
export const millis = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10000 ? `${Math.round(ms)} ms` : duration(ms / 1000));

/** A round figure at or above `n` for an axis. */
export function ceiling(n) {
	const power = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
	return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= n) ?? 10 * power;
}
