// What unstorage's own tests ask of a driver, and of its http server, with the drivers http and netlify-blobs.
import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { entries, load, options, release, site, token, unique } from './lib.mjs'

const { createStorage, prefixStorage } = await load(release)
const authorization = `Bearer ${token}`
const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)
const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const driverOf = async (name) => (await load(`${release}/drivers/${name}`)).default

const kinds = {
  http: (name) => ({ base: `${site}/api/kv/storage/${encodeURIComponent(name)}`, headers: { authorization } }),
  'netlify-blobs': (name) => options(name),
}

for (const [kind, optionsOf] of Object.entries(kinds)) {
  describe(kind, async () => {
    const driver = await driverOf(kind)
    const name = unique(kind)
    const driven = driver(optionsOf(name))
    const storage = createStorage({ driver: driven })
    after(() => storage.clear())
    const keysOf = async (...args) => (await storage.getKeys(...args)).sort()
    // check runs a test on an empty storage.
    const check = (what, run) => test(what, async () => {
      await storage.clear()
      await run()
    })

    check('nothing is there at first', async () => {
      assert.equal(await storage.hasItem('s1:a'), false)
      assert.equal(await storage.getItem('s2:a'), null)
      assert.deepEqual(await storage.getKeys(), [])
    })

    check('setItem, hasItem, getItem', async () => {
      await storage.setItem('s1:a', 'test_data')
      await storage.setItem('s2/b?q=1', 'more')
      assert.equal(await storage.hasItem('s1:a'), true)
      assert.equal(await storage.hasItem('s1'), false)
      assert.equal(await storage.getItem('s1:a'), 'test_data')
      assert.equal(await storage.getItem('s2:b?q=2'), 'more')
    })

    check('getKeys, with a base and a depth', async () => {
      for (const key of ['a', 'a:b', 'a:b:c', 'ab:c', 'd:e']) await storage.setItem(key, 'x')
      assert.deepEqual(await keysOf(), ['a', 'a:b', 'a:b:c', 'ab:c', 'd:e'])
      assert.deepEqual(await keysOf('a'), ['a:b', 'a:b:c'])
      assert.deepEqual(await keysOf('a:b:'), ['a:b:c'])
      assert.deepEqual(await keysOf('none'), [])
      assert.deepEqual(await keysOf(undefined, { maxDepth: 0 }), ['a'])
      assert.deepEqual(await keysOf(undefined, { maxDepth: 1 }), ['a', 'a:b', 'ab:c', 'd:e'])
    })

    check('objects, arrays and primitives', async () => {
      for (const value of [{ json: 'works', list: [1, null] }, [], [1, 'a'], true, false, 0, 12.5, -1e21, 'text', '', 'ü 😀', 'null-ish', null]) {
        await storage.setItem('data:value.json', value)
        assert.deepEqual(await storage.getItem('data:value.json'), value)
      }
    })

    check('what toJSON returns', async () => {
      await storage.setItem('lossy', { toJSON: () => ({ a: 'works' }) })
      assert.deepEqual(await storage.getItem('lossy'), { a: 'works' })
      await assert.rejects(storage.setItem('bad', new (class Odd {})()), /Cannot stringify/)
    })

    check('text that is nearly JSON, and JSON in text', async () => {
      for (const [text, read] of [['{"a":', '{"a":'], ['"123"', '123'], [' [1] ', [1]], ['1.0', 1], ['tru', 'tru']]) {
        await storage.setItem('text', text)
        assert.deepEqual(await storage.getItem('text'), read)
      }
    })

    check('raw items', async () => {
      for (const value of [everyByte, new Uint8Array([1, 2, 3]), new Uint8Array([0xef, 0xbb, 0xbf, 0x61])]) {
        await storage.setItemRaw('/data/raw.bin', value)
        assert.deepEqual(new Uint8Array(await storage.getItemRaw('/data/raw.bin')), value)
      }
      // unstorage 1's http driver throws a TypeError of its own instead.
      if (kind !== 'http' || release !== 'unstorage-1') assert.equal(await storage.getItemRaw('none'), null)
    })

    check('setItems, getItems', async () => {
      await storage.setItems([{ key: 't:1', value: 'one' }, { key: 't:2', value: { two: 2 } }])
      assert.deepEqual(await storage.getItems(['t:1', { key: 't:2' }, 't:none']), [
        { key: 't:1', value: 'one' }, { key: 't:2', value: { two: 2 } }, { key: 't:none', value: null },
      ])
    })

    check('removeItem', async () => {
      await storage.setItem('s1:a', 'x')
      await storage.setItem('s1:b', 'x')
      await storage.removeItem('s1:a', false)
      assert.equal(await storage.hasItem('s1:a'), false)
      await storage.removeItem('s1:a')
      assert.deepEqual(await keysOf(), ['s1:b'])
    })

    check('clear of a base alone', async () => {
      for (const key of ['a', 'a:b', 'a:b:c', 'ab:c']) await storage.setItem(key, 'x')
      await storage.clear('a') // which unstorage takes for the mounts under a, of which there are none
      assert.equal((await storage.getKeys()).length, 4)
      await driven.clear('a:')
      assert.deepEqual(await keysOf(), ['a', 'ab:c'])
      await storage.clear()
      assert.deepEqual(await keysOf(), [])
      await storage.clear()
    })

    check('setMeta, getMeta, removeMeta', async () => {
      await storage.setItem('m', 'x')
      await storage.setMeta('m', { custom: 'ü', mtime: new Date(0) })
      const meta = await storage.getMeta('m')
      assert.deepEqual([meta.custom, meta.mtime.getTime()], ['ü', 0])
      assert.deepEqual(await keysOf(), ['m'])
      await storage.removeItem('m', { removeMeta: true })
      assert.equal(await storage.getItem('m$'), null)
    })

    check('keys', async () => {
      for (const key of ['spaced out', 'ünï:日本', "it's:(a)*!$~", 'a+b&c=d;e,f', 'who@where', '[x]{y}', '__proto__']) {
        await storage.setItem(key, key)
        assert.equal(await storage.getItem(key), key)
        assert.deepEqual(await storage.getKeys(), [key])
        await storage.removeItem(key)
      }
      for (const key of ['..:a', 'a:.:b']) await assert.rejects(storage.setItem(key, 'x'))
    })

    check('prefixStorage', async () => {
      const part = prefixStorage(storage, 'part')
      await part.setItem('a:b', 'x')
      assert.deepEqual([await part.getKeys(), await storage.getKeys()], [['a:b'], ['part:a:b']])
      await part.removeItem('a:b')
      assert.deepEqual(await storage.getKeys(), [])
    })

    check('both drivers and kv-entries share a store', async () => {
      const other = createStorage({ driver: (await driverOf(kind === 'http' ? 'netlify-blobs' : 'http'))(kinds[kind === 'http' ? 'netlify-blobs' : 'http'](name)) })
      await storage.setItem('shared:a', { n: 1 })
      assert.deepEqual(await other.getItem('shared:a'), { n: 1 })
      assert.deepEqual(await other.getKeys('shared'), ['shared:a'])
      const entry = await entries('GET', `${encodeURIComponent(name)}/shared:a`)
      assert.equal(entry.headers.get('content-type'), 'application/json')
      assert.deepEqual(await entry.json(), { n: 1 })
      await entries('PUT', `${encodeURIComponent(name)}/shared:b`, { body: '[2]', headers: { 'content-type': 'application/json' } })
      assert.deepEqual(await storage.getItem('shared:b'), [2])
    })
  })
}

describe('http alone', async () => {
  const name = unique('alone')
  const base = `${site}/api/kv/storage/${name}`
  const driver = await driverOf('http')
  const storage = createStorage({ driver: driver({ base, headers: { authorization } }) })
  after(() => storage.clear())
  const send = (method, path, { headers = {}, body } = {}) => fetch(`${base}/${path}`, { method, body, headers: { authorization, ...headers } })

  test('ttl', async () => {
    const began = Date.now()
    await storage.setItem('brief', 'x', { ttl: 2 })
    const early = await storage.getItem('brief')
    if (Date.now() - began < 1900) assert.equal(early, 'x') // a slow machine may have taken longer
    await storage.setItemRaw('raw', everyByte, { ttl: 3600 })
    const meta = await storage.getMeta('raw')
    assert.ok(meta.ttl > 3000 && meta.ttl <= 3600, `ttl ${meta.ttl}`)
    assert.ok(Math.abs(meta.mtime.getTime() - began) < 60_000)
    assert.equal(meta.status, 200)
    await sleep(2100)
    assert.equal(await storage.hasItem('brief'), false)
    assert.equal(await storage.getItem('brief'), null)
    assert.deepEqual(await storage.getKeys(), ['raw'])
    await storage.setItemRaw('raw', everyByte)
    assert.equal((await storage.getMeta('raw')).ttl, undefined)
    for (const ttl of ['0', '0.5', 'soon', '-1', '1e12']) {
      const refused = await send('PUT', 'bad', { headers: { 'x-ttl': ttl }, body: 'x' })
      assert.equal(refused.status, 400, ttl)
      assert.match((await refused.json()).error, /x-ttl|seconds/)
    }
  })

  test('headers of a call', async () => {
    await storage.setItem('typed', '<p>', { headers: { 'content-type': 'text/html' } })
    assert.equal((await send('GET', 'typed', { headers: { accept: 'application/octet-stream' } })).headers.get('content-type'), 'text/html')
    assert.equal(await storage.getItem('typed'), '<p>')
  })

  test("the server's protocol", async () => {
    assert.equal(await (await send('PUT', 'foo/bar', { body: 'bar' })).text(), 'OK')
    assert.equal(await (await send('GET', 'foo/bar')).text(), 'bar')
    const head = await send('HEAD', 'foo/bar')
    assert.deepEqual([head.status, head.headers.get('content-length'), await head.text()], [200, '3', ''])
    for (const path of ['foo/', 'foo:', 'foo/:', 'foo//', 'foo%2F']) assert.deepEqual(await (await send('GET', path)).json(), ['foo/bar'], path)
    assert.deepEqual(await (await send('GET', 'fo/')).json(), [])
    assert.equal(await (await send('DELETE', 'foo/bar')).text(), 'OK')
    assert.equal((await send('DELETE', 'foo/bar')).status, 200)
    for (const method of ['GET', 'HEAD']) assert.equal((await send(method, 'foo/bar')).status, 404)
    assert.equal((await send('POST', 'foo/bar')).status, 405)
    assert.equal((await send('PUT', 'foo/', { body: 'x' })).status, 400)
    assert.equal((await send('HEAD', 'foo:')).status, 400)
    assert.equal((await send('GET', 'a%3A..%3Ab')).status, 400)
    assert.equal((await fetch(base, { headers: { authorization } })).status, 400)
  })

  test('conditions', async () => {
    await assert.rejects(storage.setItem('c', 'x', { headers: { 'if-match': '*' } }), /412/)
    await storage.setItem('c', 'one', { headers: { 'if-none-match': '*' } })
    await assert.rejects(storage.setItem('c', 'two', { headers: { 'if-none-match': '*' } }), /412/)
    const etag = (await send('HEAD', 'c')).headers.get('etag')
    const put = await send('PUT', 'c', { headers: { 'if-match': etag }, body: 'two' })
    assert.equal(put.status, 200)
    assert.equal((await send('HEAD', 'c')).headers.get('etag'), put.headers.get('etag'))
    await assert.rejects(storage.removeItem('c', { headers: { 'if-match': etag } }), /412/)
    assert.equal((await send('GET', 'c', { headers: { 'if-none-match': put.headers.get('etag') } })).status, 304)
    assert.equal(await storage.getItem('c'), 'two')
    await storage.removeItem('c', { headers: { 'if-match': put.headers.get('etag') } })
    assert.equal(await storage.getItem('c'), null)
  })

  test('of 100 that only create, one wins', async () => {
    const results = await Promise.allSettled(Array.from({ length: 100 }, (_, i) => storage.setItem('race', i, { headers: { 'if-none-match': '*' } })))
    const won = results.flatMap((result, i) => (result.status === 'fulfilled' ? [i] : []))
    for (const result of results) if (result.reason) assert.match(String(result.reason), /412/)
    assert.deepEqual([won.length, await storage.getItem('race')], [1, won[0]])
  })

  test("keys that are not unstorage's are neither listed nor cleared", async () => {
    await storage.clear()
    for (const key of ['a/b', 'a::b', ':a', 'a/../b']) await entries('PUT', `${name}/${encodeURIComponent(key)}`, { body: 'x' })
    await storage.setItem('a:b', 'own')
    assert.deepEqual(await storage.getKeys(), ['a:b'])
    await storage.clear()
    const { entries: left } = await (await entries('GET', name)).json()
    assert.deepEqual(left.map((entry) => entry.key), [':a', 'a/../b', 'a/b', 'a::b'])
    for (const { key } of left) await entries('DELETE', `${name}/${encodeURIComponent(key)}`)
  })

  test('a wrong token is refused', { skip: Boolean(process.env.KV_CLIENTS_OPEN) }, async () => {
    const closed = createStorage({ driver: driver({ base, headers: { authorization: 'Bearer wrong' } }) })
    for (const call of [() => closed.getItem('k'), () => closed.setItem('k', 'v'), () => closed.removeItem('k'), () => closed.getKeys(), () => closed.hasItem('k'), () => closed.clear()]) {
      await assert.rejects(call(), /401/)
    }
  })
})
