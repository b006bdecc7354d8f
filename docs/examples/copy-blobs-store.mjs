// Copies a store of Netlify Blobs to the store of the same name behind kv-blobs-api: the bytes and the metadata of every
// blob. It reads each copy back. Run it again after an interruption, or to bring what has changed: only what differs is
// written. It removes nothing on either side. Stop the writers before the last run.
//
//   npm install @netlify/blobs@11.1.1
//   SITE=https://my-site.netlify.app TOKEN=… NETLIFY_SITE_ID=… NETLIFY_BLOBS_TOKEN=… node copy-blobs-store.mjs sessions
import { pathToFileURL } from 'node:url'

// The client puts keys into addresses as they are.
const address = (key) => key.split('/').map(encodeURIComponent).join('/')

const same = (a, b) =>
  a !== null && b !== null && Buffer.from(a.data).equals(Buffer.from(b.data)) && JSON.stringify(a.metadata) === JSON.stringify(b.metadata)

// copy returns how many blobs were copied, and were there already, and the keys that failed with the reason. A key that is
// listed and not found fails, too: look whether somebody has just removed it.
export async function copy(source, target, { parallel = 8, progress = () => {} } = {}) {
  const result = { copied: 0, same: 0, failed: [] }
  const read = (store, key) => store.getWithMetadata(address(key), { type: 'arrayBuffer' })
  const one = async (key) => {
    const blob = await read(source, key)
    if (blob === null) throw new Error('listed, but not found')
    if (same(blob, await read(target, key))) {
      result.same++
      return
    }
    await target.set(address(key), blob.data, { metadata: blob.metadata })
    if (!same(blob, await read(target, key))) throw new Error('the copy differs from the blob')
    result.copied++
  }
  for await (const page of source.list({ paginate: true })) {
    const keys = page.blobs.map((blob) => blob.key)
    const worker = async () => {
      for (let key = keys.shift(); key !== undefined; key = keys.shift()) {
        await one(key).catch((error) => result.failed.push(`${key}: ${error.message}`))
      }
    }
    await Promise.all(Array.from({ length: parallel }, worker))
    progress(result)
  }
  return result
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { getStore } = await import('@netlify/blobs')
  const { SITE, TOKEN = 'none', NETLIFY_SITE_ID, NETLIFY_BLOBS_TOKEN } = process.env
  const name = process.argv[2]
  if (!name || !SITE || !NETLIFY_SITE_ID || !NETLIFY_BLOBS_TOKEN) {
    console.error('usage: SITE=… TOKEN=… NETLIFY_SITE_ID=… NETLIFY_BLOBS_TOKEN=… node copy-blobs-store.mjs <store>')
    process.exit(2)
  }
  const source = getStore({ name, siteID: NETLIFY_SITE_ID, token: NETLIFY_BLOBS_TOKEN, consistency: 'strong' })
  const target = getStore({ name, siteID: 'api/kv/blobs', token: TOKEN, edgeURL: SITE, uncachedEdgeURL: SITE })
  const show = ({ copied, same, failed }) => console.log(`copied ${copied}, the same ${same}, failed ${failed.length}`)
  const result = await copy(source, target, { progress: show })
  for (const failure of result.failed) console.error(failure)
  process.exit(result.failed.length > 0 ? 1 : 0)
}
