#!/usr/bin/env node
// Builds the page: one HTML, one script, one style sheet, and each with gzip. `build.mjs FOLDER` writes them there.

import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const here = dirname(fileURLToPath(import.meta.url));
const folder = resolve(process.argv[2] ?? join(here, "../crates/http/src/page/dist"));

await mkdir(folder, { recursive: true });
await build({
	absWorkingDir: here,
	entryPoints: { page: "src/main.js" },
	outdir: folder,
	bundle: true,
	format: "esm",
	target: ["es2023", "chrome114", "firefox121", "safari17.4"],
	minify: true,
	charset: "utf8",
	legalComments: "none",
	logLevel: "warning",
});
await build({
	absWorkingDir: here,
	entryPoints: { page: "src/page.css" },
	outdir: folder,
	minify: true,
	target: ["chrome123", "firefox121", "safari17.5"],
	logLevel: "warning",
});
await copyFile(join(here, "src/index.html"), join(folder, "index.html"));
for (const name of ["index.html", "page.js", "page.css"]) {
	const plain = await readFile(join(folder, name));
	const squeezed = gzipSync(plain, { level: 9 });
	await writeFile(join(folder, `${name}.gz`), squeezed);
	if (process.argv[2] === undefined) console.log(`${name.padEnd(12)} ${plain.byteLength} B, ${squeezed.byteLength} B with gzip`);
}
