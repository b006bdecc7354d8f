// kv migrate --store, from the client's own local server to what the client reads from the functions.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { load, options, unique } from './lib.mjs'

// The client puts keys into addresses as they are, and its local server takes addresses literally.
const address = (key) => key.replace(/[?#%\\]/g, encodeURIComponent)

const { getStore } = await load('@netlify/blobs')
const { BlobsServer } = await load('@netlify/blobs/server')

test('after a migration, the client reads the same bytes and metadata', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'blobs-'))
  const server = new BlobsServer({ directory, token: 'source' })
  const { port } = await server.start()
  after(() => server.stop())
  const url = `http://localhost:${port}`
  const name = unique('migrate')
  const source = getStore({ name, siteID: 'site', token: 'source', edgeURL: url, uncachedEdgeURL: url })
  const target = getStore(options(name))
  after(() => target.deleteAll())

  const blobs = {
    'a/b c': [Buffer.from([0, 255, 1]), { of: 'a', list: [1, { deep: 'ü😀\ud800' }] }],
    text: [Buffer.from('héllo\r\n'), {}],
    json: [Buffer.from('{ "a": 1.0 }')],
    empty: [Buffer.alloc(0), { '': null }],
    'index:x': [Buffer.from('["a"]'), { i: [['a', 'b']], c: 1 }],
    'k-2_~.x': [Buffer.from('x')],
    'q?x#y%41\\z': [Buffer.from('encoded')],
  }
  for (const [key, [bytes, metadata]] of Object.entries(blobs)) await source.set(address(key), bytes, { metadata })
  const env = { ...process.env, NETLIFY_SITE_ID: 'site', NETLIFY_BLOBS_TOKEN: 'source', NETLIFY_BLOBS_API_URL: url }
  const migrate = (command, ...args) => // not sync: the server is in this process
    promisify(execFile)(process.env.KV_CLIENTS_KV, ['migrate', command, '--store', name, '--decode-keys', ...args], { env })
  const reports = ['--dir', join(directory, 'reports')]
  await migrate('run', ...reports)
  await migrate('verify', ...reports)
  await migrate('ready')

  for (const [key, [bytes]] of Object.entries(blobs)) {
    const before = await source.getWithMetadata(address(key), { type: 'arrayBuffer' })
    const now = await target.getWithMetadata(address(key), { type: 'arrayBuffer' })
    assert.ok(bytes.equals(Buffer.from(now.data)), key)
    assert.deepEqual(now.metadata, before.metadata, key)
  }
  const { blobs: listed } = await target.list()
  assert.deepEqual(listed.map(({ key }) => key), Object.keys(blobs).sort())

  await source.set('text', 'changed', { metadata: { changed: true } })
  await target.set('json', 'changed here')
  await target.delete('empty')
  await migrate('run', ...reports)
  assert.deepEqual((await target.getWithMetadata('text')).metadata, { changed: true })
  assert.equal(await target.get('json'), 'changed here', 'what was written since stays')
  assert.equal(await target.get('empty'), null, 'what was deleted since stays away')
  await migrate('close')
})
