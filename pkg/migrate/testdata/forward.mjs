// A site's JavaScript functions as they were before, with docs/examples/kv-forward.mjs around their writes. Each line of the input is
// {"n","op","key","value","indexes"}; eight run side by side, and each is answered by a line: {"n"} or {"n","error"}.
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { forward } from '../../../docs/examples/kv-forward.mjs';

const { getStore } = createRequire(path.join(process.argv[2], 'here.cjs'))('@netlify/blobs');
const store = getStore({ name: 'kv', ...JSON.parse(process.env.STORE), consistency: 'strong' });

const operations = {
  // What kv-upsert was, but that it loses no member when two callers add one at once.
  async upsert({ key, value, indexes }, metadata) {
    await store.set(key, value, { metadata });
    for (const { key: index, member } of indexes ?? []) {
      for (;;) {
        const there = await store.getWithMetadata(index, { type: 'json' });
        const members = there?.data ?? [];
        if (members.includes(member)) break;
        const written = await store.setJSON(index, [...members, member], there ? { onlyIfMatch: there.etag } : { onlyIfNew: true });
        if (written.modified) break;
      }
    }
  },
  delete: ({ key }) => store.delete(key),
  // The function is ended after its write.
  async killed(write, metadata) {
    await operations.upsert(write, metadata);
    process.exit(1);
  },
};

const times = process.env.PATIENT ? { outboxTime: 120_000, copyTime: 120_000 } : {};

async function run(write) {
  try {
    await forward(store, { ...write, ...times }, (metadata) => operations[write.op](write, metadata));
    console.log(JSON.stringify({ n: write.n }));
  } catch (error) {
    console.log(JSON.stringify({ n: write.n, error: String(error) }));
  }
}

const writes = [];
for await (const line of readline.createInterface({ input: process.stdin })) writes.push(JSON.parse(line));
await Promise.all(Array.from({ length: 8 }, async () => {
  while (writes.length > 0) await run(writes.shift());
}));
