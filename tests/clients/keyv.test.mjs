// keyv on the adapter that docs/CLIENTS.md shows.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { load, options, unique } from './lib.mjs'

const { getStore } = await load('@netlify/blobs')
const { Keyv } = await load('keyv')
const open = () => {
  const store = getStore(options(unique('keyv')))
  after(() => store.deleteAll())
  // The same lines are in docs/CLIENTS.md.
  const at = encodeURIComponent
  const adapter = {
    get: async (key) => (await store.get(at(key))) ?? undefined,
    set: (key, value) => store.set(at(key), value),
    delete: async (key) => {
      const found = await store.getMetadata(at(key))
      await store.delete(at(key))
      return found !== null
    },
    clear: () => store.deleteAll(),
  }
  return new Keyv({ store: adapter })
}
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))

test('set, get, has, delete', async () => {
  const keyv = open()
  assert.equal(await keyv.get('none'), undefined)
  assert.equal(await keyv.has('none'), false)
  for (const value of ['text', 0, false, null, { a: [1, 'ü'] }, Buffer.from([0, 255])]) {
    assert.equal(await keyv.set('a/b?c#d%', value), true)
    assert.deepEqual(await keyv.get('a/b?c#d%'), value)
    assert.equal(await keyv.has('a/b?c#d%'), true)
  }
  assert.equal(await keyv.delete('a/b?c#d%'), true)
  assert.equal(await keyv.delete('a/b?c#d%'), false)
  assert.equal(await keyv.get('a/b?c#d%'), undefined)
})

test('ttl', async () => {
  const keyv = open()
  await keyv.set('brief', 'x', 300)
  await keyv.set('long', 'x', 600_000)
  await sleep(400)
  assert.deepEqual([await keyv.get('brief'), await keyv.get('long')], [undefined, 'x'])
})

test('many', async () => {
  const keyv = open()
  await keyv.setMany([{ key: 'a', value: 1 }, { key: 'b', value: 2 }])
  assert.deepEqual(await keyv.get(['a', 'none', 'b']), [1, undefined, 2])
  await keyv.delete(['a', 'b'])
  assert.deepEqual(await keyv.get(['a', 'b']), [undefined, undefined])
})

test('clear is of one store', async () => {
  const [one, other] = [open(), open()]
  await Promise.all([one.set('k', 1), other.set('k', 2)])
  await one.clear()
  assert.deepEqual([await one.get('k'), await other.get('k')], [undefined, 2])
})
