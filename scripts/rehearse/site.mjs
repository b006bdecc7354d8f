// A site's JavaScript functions on Netlify Blobs, as they were before: node site.mjs <node_modules> <number of entries>.
import { createRequire } from 'node:module';
import path from 'node:path';

const { getStore } = createRequire(path.resolve(process.argv[2], 'here.cjs'))('@netlify/blobs');
const { url, url_uncached: uncachedEdgeURL, token } = JSON.parse(Buffer.from(process.env.NETLIFY_BLOBS_EVENT, 'base64'));
const open = (name) => getStore({ name, siteID: process.env.NETLIFY_SITE_ID, token, edgeURL: url, uncachedEdgeURL, consistency: 'strong' });
const store = open('kv');

async function upsert({ key, value, indexes = [] }) {
  await store.setJSON(key, value);
  for (const { key: index, member } of indexes) {
    const members = (await store.get(index, { type: 'json' })) ?? [];
    if (!members.includes(member)) await store.setJSON(index, [...members, member]);
  }
}

for (let i = 1; i <= Number(process.argv[3]); i++) {
  await upsert({
    key: `sessions/${i}`,
    value: { user: `user ${i}`, score: i },
    indexes: [{ key: 'index:sessions', member: String(i) }, { key: `index:by:${i % 3}`, member: String(i) }],
  });
}
await upsert({ key: 'profile/1', value: { name: 'a key that ends as a session does' } });
await store.set('logo', 'no JSON');
await open('files').set('images/logo.svg', '<svg/>', { metadata: { by: 'ada' } });
await store.delete('sessions/2'); // its member stays in the indexes
