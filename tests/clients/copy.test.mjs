// docs/examples/copy-blobs-store.mjs, from the client's own local server to the functions.
import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { copy } from '../../docs/examples/copy-blobs-store.mjs'
import { load, options, unique } from './lib.mjs'

const { getStore } = await load('@netlify/blobs')
const { BlobsServer } = await load('@netlify/blobs/server')

test('a store is copied byte for byte, and only what differs is written again', async () => {
  const server = new BlobsServer({ directory: await mkdtemp(join(tmpdir(), 'blobs-')), token: 'source' })
  const { port } = await server.start()
  after(() => server.stop())
  const name = unique('copy')
  const source = getStore({ name, siteID: 'site', token: 'source', edgeURL: `http://localhost:${port}`, uncachedEdgeURL: `http://localhost:${port}` })
  const target = getStore(options(name))
  after(() => target.deleteAll())

  const blobs = { 'a/b': Buffer.from([0, 255, 1]), text: Buffer.from('héllo'), json: Buffer.from('{ "a": 1.0 }'), empty: Buffer.alloc(0), 'k-2_~.x': Buffer.from('x') }
  for (const [key, bytes] of Object.entries(blobs)) {
    await source.set(key, bytes, { metadata: { of: key } })
  }
  assert.deepEqual(await copy(source, target), { copied: 5, same: 0, failed: [] })
  assert.deepEqual(await copy(source, target), { copied: 0, same: 5, failed: [] })
  for (const [key, bytes] of Object.entries(blobs)) {
    const got = await target.getWithMetadata(key, { type: 'arrayBuffer' })
    assert.ok(bytes.equals(Buffer.from(got.data)), key)
    assert.deepEqual(got.metadata, { of: key })
  }

  await source.set('text', 'changed')
  await target.set('json', 'changed')
  assert.deepEqual(await copy(source, target), { copied: 2, same: 3, failed: [] })
  assert.equal(await target.get('text'), 'changed')
  assert.equal(await target.get('json'), '{ "a": 1.0 }')
})

test('what cannot be copied is named, and the others are copied', async () => {
  const blobs = { good: 'x', large: Buffer.alloc(5_000_000), gone: null }
  const source = {
    async *list() { yield { blobs: Object.keys(blobs).map((key) => ({ key })) } },
    getWithMetadata: async (key) => blobs[key] && { data: Buffer.from(blobs[key]), metadata: {} },
  }
  const target = getStore(options(unique('copy')))
  after(() => target.deleteAll())
  const result = await copy(source, target)
  assert.equal(result.copied, 1)
  assert.deepEqual(result.failed.map((text) => text.split(':')[0]).sort(), ['gone', 'large'])
})
