// Drives the stand-in with the real @netlify/blobs, by the way in that CONFIG names. Ends with 0 when all of it held.
const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const path = require("node:path");
const { getStore } = createRequire(path.join(process.argv[2], "here.cjs"))("@netlify/blobs");

const config = JSON.parse(process.env.CONFIG);
const event = JSON.parse(Buffer.from(config.event, "base64").toString());

function options(region) {
  if (config.way === "api") {
    return { name: "kv", siteID: config.siteID, token: config.apiToken, apiURL: config.apiURL, region };
  }
  return {
    name: "kv", siteID: config.siteID, token: event.token, region,
    edgeURL: event.url, uncachedEdgeURL: event.url_uncached, consistency: "strong",
  };
}

async function setFaults(faults) {
  const res = await fetch(config.faults, { method: "PUT", body: JSON.stringify(faults) });
  assert.equal(res.status, 200);
  return (await res.json()).counts;
}

async function main() {
  const store = getStore(options());

  const ours = await store.getWithMetadata("go/spaced é😀");
  assert.equal(ours.data, "from go");
  assert.deepEqual(ours.metadata, { from: "go" });
  const written = await store.set("js/spaced é😀", "from js", { metadata: { from: "js" } });
  assert.equal(written.modified, true);
  assert.deepEqual(await store.getMetadata("js/spaced é😀"), { etag: written.etag, metadata: { from: "js" } });
  assert.equal(await store.get("missing"), null);
  assert.equal(await store.getMetadata("missing"), null);

  const same = await store.getWithMetadata("js/spaced é😀", { etag: written.etag });
  assert.equal(same.data, null);
  assert.equal(same.etag, written.etag);

  // Values of every kind.
  const big = "x".repeat(5 << 20);
  await store.set("big", big);
  assert.equal(await store.get("big"), big);
  await store.setJSON("json", { a: [1, null] });
  assert.deepEqual(await store.get("json", { type: "json" }), { a: [1, null] });
  await store.set("bytes", Uint8Array.from([0, 255, 10]).buffer);
  assert.deepEqual([...new Uint8Array(await store.get("bytes", { type: "arrayBuffer" }))], [0, 255, 10]);
  await store.set("none", "");
  assert.equal(await store.get("none"), "");

  // Conditions.
  const tries = await Promise.all(Array.from({ length: 50 }, (_, i) => store.set("once", String(i), { onlyIfNew: true })));
  assert.equal(tries.filter((t) => t.modified).length, 1);
  const [{ etag }] = tries.filter((t) => t.modified);
  assert.equal((await store.set("once", "second", { onlyIfMatch: etag })).modified, true);
  assert.equal((await store.set("once", "third", { onlyIfMatch: etag })).modified, false);
  assert.equal(await store.get("once"), "second");

  // Keys, and that a and a/b are two.
  for (const key of ["a", "a/b", "a/b/c", "it's", 'say "hi"', "a+b&c=d", "ünï/😀", "[x]{y}|^`", "CON", "k".repeat(600)]) {
    await store.set(`keys/${key}`.slice(0, 600), key);
    assert.equal(await store.get(`keys/${key}`.slice(0, 600)), key);
  }
  const names = (await store.list({ prefix: "keys/" })).blobs.map((b) => b.key);
  assert.equal(names.length, 10);
  assert.ok(names.includes("keys/[x]{y}|^`") && names.includes("keys/ünï/😀"));
  const rolled = await store.list({ prefix: "keys/", directories: true });
  assert.deepEqual(rolled.directories, ["keys/a", "keys/ünï"]);
  assert.equal(rolled.blobs.length, 7);

  // Pages of ten.
  await Promise.all(Array.from({ length: 35 }, (_, i) => store.set(`page/${String(i).padStart(2, "0")}`, "")));
  const sizes = [];
  for await (const page of store.list({ prefix: "page/", paginate: true })) {
    sizes.push(page.blobs.length);
  }
  assert.deepEqual(sizes, [10, 10, 10, 5]);
  const all = (await store.list({ prefix: "page/" })).blobs;
  assert.equal(new Set(all.map((b) => b.key)).size, 35);
  assert.equal(all[0].etag, (await store.getMetadata("page/00")).etag);

  await store.delete("page/00");
  await store.delete("page/00");
  assert.equal(await store.get("page/00"), null);
  assert.equal(await getStore(options("us-east-2")).get("page/01"), "");

  // The client gets over what passes.
  await setFaults(config.way === "api" ? { seed: 1, expired_url: 0.2 } : { seed: 1, server_error: 0.3 });
  for (let i = 0; i < 10; i++) {
    await store.set("faults", String(i));
    assert.equal(await store.get("faults"), String(i));
  }
  const { counts } = await (await fetch(config.faults)).json();
  assert.ok(Object.values(counts).some((n) => n > 0));
  await setFaults({});

  await assert.rejects(getStore({ ...options(), token: "wrong" }).get("a"), /401|token/);

  const other = getStore({ ...options(), name: "other" });
  await Promise.all(Array.from({ length: 25 }, (_, i) => other.set(`k${i}`, "")));
  assert.deepEqual(await other.deleteAll(), { deletedBlobs: 25 });
  assert.deepEqual((await other.list()).blobs, []);
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
