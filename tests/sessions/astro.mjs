// Calls the driver for Astro in the folder APP as Astro does: through a storage of unstorage, with text to keep.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

const { APP, STORE, SITE, KV_API_TOKEN } = process.env
const { createStorage } = createRequire(join(APP, 'package.json'))('unstorage')
const { default: driver } = await import(pathToFileURL(join(APP, 'session-driver.mjs')))
const storage = createStorage({ driver: { ...driver(undefined), hasItem: () => false, getKeys: () => [] } })
const id = crypto.randomUUID()
const session = [['Map', 1, 2], 'user', { data: 3, expires: -1 }, { name: 4 }, 'Ünï 😀'] // one value, as Astro writes it

await storage.setItem(id, JSON.stringify(session))
assert.deepEqual(await storage.get(id), session)
const entry = await fetch(`${SITE}/api/kv/entries/${STORE}/${id}`, { headers: { authorization: `Bearer ${KV_API_TOKEN}` } })
const left = new Date(entry.headers.get('x-kv-expires')) - Date.now()
assert.ok(Math.abs(left / 86_400_000 - 1) < 0.01, `the entry expires in ${left} ms, of 86,400,000`)
await storage.removeItem(id)
assert.equal(await storage.get(id), null)
