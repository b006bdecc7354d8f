// Runs the BlobsServer of @netlify/blobs in a directory, and carries out with its client what stands on each line of the
// input: {"way","op","key","value","metadata"}. Prints one line of JSON for each. Ends with the input.
const { createRequire } = require("node:module");
const path = require("node:path");
const readline = require("node:readline");
const [modules, directory] = process.argv.slice(2);
const load = createRequire(path.join(modules, "here.cjs"));
const { getStore } = load("@netlify/blobs");
const { BlobsServer } = load("@netlify/blobs/server");

const siteID = "site", token = "interop-token";

const operations = {
  set: (store, { key, value, metadata }) => store.set(key, value, { metadata }),
  get: (store, { key }) => store.getWithMetadata(key),
  head: (store, { key }) => store.getMetadata(key),
  delete: (store, { key }) => store.delete(key),
  list: async (store, { key }) => (await store.list({ prefix: key })).blobs.map((b) => b.key),
};

async function main() {
  const server = new BlobsServer({ directory, token, logger: () => {} });
  const { address } = await server.start();
  const stores = {
    edge: getStore({ name: "kv", siteID, token, edgeURL: address, uncachedEdgeURL: address, consistency: "strong" }),
    api: getStore({ name: "kv", siteID, token, apiURL: address }),
  };
  console.log(JSON.stringify({ address, siteID, token }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    const result = await operations[request.op](stores[request.way], request);
    console.log(JSON.stringify({ result: result ?? null }));
  }
  await server.stop();
}

main().then(() => process.exit(0), (err) => {
  console.error(err);
  process.exit(1);
});
