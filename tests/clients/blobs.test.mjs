// Every method and option of @netlify/blobs against kv-blobs-api.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { entries, load, options, release, site, token, unique } from './lib.mjs'

const { getStore, getDeployStore, listStores, setEnvironmentContext } = await load(release)
const has = { conditions: false, deleteAll: false, listStores: Boolean(listStores) }
{
  const store = getStore(options('none'))
  has.deleteAll = Boolean(store.deleteAll)
  has.conditions = /onlyIfNew/.test(String(store.constructor))
}
const bytes = (...list) => new Uint8Array(list)
const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)

const used = []
const open = (name, more) => {
  const store = getStore(options(unique(name), more))
  used.push(store)
  return store
}
// A store's name, as kv-entries has it.
const nameOf = (store) => encodeURIComponent(store.name.replace(/^site:/, ''))

after(async () => {
  for (const store of used) {
    for (const { key } of (await store.list()).blobs) await store.delete(encodeURIComponent(key))
  }
})

describe('get and set', () => {
  const store = open('values')

  test('text', async () => {
    for (const text of ['hello', '', 'ü 😀 日本', '{"not": json', '0', 'null', ' {"a": 1.0, "a": 2} ', 'line\nline\u0000']) {
      await store.set('text', text)
      assert.equal(await store.get('text'), text)
      assert.equal(await store.get('text', { type: 'text' }), text)
    }
  })

  test('bytes', async () => {
    for (const data of [everyByte, bytes(), bytes(0xef, 0xbb, 0xbf, 0x7b, 0x7d), bytes(0xff, 0xfe)]) {
      await store.set('bytes', data.buffer)
      assert.deepEqual(new Uint8Array(await store.get('bytes', { type: 'arrayBuffer' })), data)
      const blob = await store.get('bytes', { type: 'blob' })
      assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), data)
      const stream = await store.get('bytes', { type: 'stream' })
      const chunks = []
      for await (const chunk of stream ?? []) chunks.push(chunk)
      assert.deepEqual(new Uint8Array(Buffer.concat(chunks)), data)
    }
  })

  test('a Blob keeps its type', async () => {
    await store.set('blob', new Blob([everyByte], { type: 'image/png' }))
    const blob = await store.get('blob', { type: 'blob' })
    assert.equal(blob.type, 'image/png')
    assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), everyByte)
  })

  test('a Blob with a type that is no media type is kept as bytes', async () => {
    for (const type of ['csv', 'text/plain; a=1; a=2', `text/${'x'.repeat(255)}`]) {
      await store.set('odd', new Blob([type], { type }))
      const blob = await store.get('odd', { type: 'blob' })
      assert.deepEqual([blob.type, await blob.text()], ['application/octet-stream', type])
    }
  })

  test('setJSON', async () => {
    for (const value of [{ a: [1, 'ü', null, { b: true }] }, [], 'text', 0, false, null, 'half \ud800 of a pair']) {
      await store.setJSON('json', value)
      assert.deepEqual(await store.get('json', { type: 'json' }), value)
    }
  })

  test('4 MB', async () => {
    const data = new Uint8Array(4_000_000).map((_, i) => (i * 31) % 251)
    await store.set('large', data.buffer)
    assert.ok(Buffer.from(await store.get('large', { type: 'arrayBuffer' })).equals(Buffer.from(data)))
  })

  test('a missing key is null', async () => {
    for (const type of ['text', 'json', 'arrayBuffer', 'blob', 'stream']) assert.equal(await store.get('none', { type }), null)
    assert.equal(await store.getMetadata('none'), null)
    assert.equal(await store.getWithMetadata('none'), null)
  })

  test('both consistencies are strong', async () => {
    for (const consistency of ['strong', 'eventual']) {
      for (let i = 0; i < 20; i++) {
        await store.set('fresh', String(i))
        assert.equal(await store.get('fresh', { consistency }), String(i))
      }
    }
  })

  test('delete', async () => {
    await store.set('gone', 'x')
    await store.delete('gone')
    assert.equal(await store.get('gone'), null)
    await store.delete('gone')
  })
})

describe('metadata', () => {
  const store = open('metadata')
  const rich = { text: 'ü 😀', list: [1, 2.5, null], nested: { a: true }, '': '' }

  test('set, setJSON, getMetadata, getWithMetadata', async () => {
    for (const set of [() => store.set('k', 'v', { metadata: rich }), () => store.setJSON('k', {}, { metadata: rich })]) {
      await set()
      const { etag, metadata } = await store.getMetadata('k')
      assert.deepEqual(metadata, rich)
      assert.match(etag, /^"[^"]+"$/)
      const all = await store.getWithMetadata('k')
      assert.deepEqual([all.metadata, all.etag], [rich, etag])
    }
  })

  test('what a set leaves out is gone', async () => {
    await store.set('k', 'v', { metadata: rich })
    await store.set('k', 'v')
    assert.deepEqual((await store.getMetadata('k')).metadata, {})
  })

  test('as much as the client allows', async () => {
    const metadata = { a: 'x'.repeat(1500) }
    await store.set('most', 'v', { metadata })
    assert.deepEqual((await store.getMetadata('most')).metadata, metadata)
    await assert.rejects(store.set('most', 'v', { metadata: { a: 'x'.repeat(1600) } }), /exceeds the maximum size/)
  })

  test('that is not an object is refused', async () => {
    await assert.rejects(store.set('list', 'v', { metadata: [1] }), /400|object/)
    assert.equal(await store.get('list'), null)
  })

  test('etag of getWithMetadata', async () => {
    await store.setJSON('tag', { a: 1 }, { metadata: rich })
    for (const type of ['text', 'json', 'arrayBuffer', 'blob', 'stream']) {
      const first = await store.getWithMetadata('tag', { type })
      if (type === 'stream') await first.data.cancel()
      const same = await store.getWithMetadata('tag', { type, etag: first.etag })
      assert.deepEqual([same.data, same.etag, same.metadata], [null, first.etag, rich])
      await store.setJSON('tag', { a: type }, { metadata: rich })
      const changed = await store.getWithMetadata('tag', { type: 'json', etag: first.etag })
      assert.deepEqual(changed.data, { a: type })
      assert.notEqual(changed.etag, first.etag)
    }
  })
})

describe('list', () => {
  const store = open('list')
  const keys = ['a', 'b/1', 'b/2', 'b/c/1', 'd', 'ü/😀', 'spaced key', "it's (a) *!$~", 'a+b&c=d;e,f', 'who@where:x', 'x/', 'B']
  before(() => Promise.all(keys.map((key) => store.set(key, key))))
  const listed = async (...args) => {
    const { blobs, directories } = await store.list(...args)
    return [blobs.map((blob) => blob.key), directories]
  }
  const sorted = (list) => [...list].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))

  test('every key, sorted, with the etag that get has', async () => {
    assert.deepEqual(await listed(), [sorted(keys), []])
    for (const { key, etag } of (await store.list()).blobs) {
      const { data, etag: own } = await store.getWithMetadata(key)
      assert.deepEqual([data, own], [key, etag])
    }
  })

  test('prefix', async () => {
    assert.deepEqual(await listed({ prefix: 'b/' }), [['b/1', 'b/2', 'b/c/1'], []])
    assert.deepEqual(await listed({ prefix: 'ü' }), [['ü/😀'], []])
    assert.deepEqual(await listed({ prefix: 'a+b&' }), [['a+b&c=d;e,f'], []])
    assert.deepEqual(await listed({ prefix: 'none' }), [[], []])
  })

  test('directories', async () => {
    assert.deepEqual(await listed({ directories: true }), [sorted(keys.filter((key) => !key.includes('/'))), ['b', 'x', 'ü']])
    assert.deepEqual(await listed({ directories: true, prefix: 'b/' }), [['b/1', 'b/2'], ['b/c']])
  })

  test('paginate', async () => {
    const pages = []
    for await (const page of store.list({ paginate: true, prefix: 'b' })) pages.push(page)
    assert.deepEqual(pages.map((page) => page.blobs.map((blob) => blob.key)), [['b/1', 'b/2', 'b/c/1']])
  })

  test('pages of 1,000', async () => {
    const many = open('pages')
    const operations = Array.from({ length: 1250 }, (_, i) => ({ op: 'put', key: `${i % 2 ? 'even' : 'odd'}/${String(i).padStart(4, '0')}/x`, value: i }))
    for (let i = 0; i < operations.length; i += 500) {
      const body = JSON.stringify({ store: decodeURIComponent(nameOf(many)), operations: operations.slice(i, i + 500) })
      const response = await fetch(`${site}/api/kv/batch`, { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body })
      assert.equal(response.status, 200, await response.text())
    }
    const sizes = []
    for await (const page of many.list({ paginate: true })) sizes.push(page.blobs.length)
    assert.deepEqual(sizes, [1000, 250])
    assert.equal(new Set((await many.list()).blobs.map((blob) => blob.key)).size, 1250)
    const { blobs, directories } = await many.list({ directories: true })
    assert.deepEqual([blobs, directories], [[], ['even', 'odd']])
    const inside = await many.list({ directories: true, prefix: 'odd/' })
    assert.equal(inside.directories.length, 625)
    if (has.deleteAll) assert.deepEqual(await many.deleteAll(), { deletedBlobs: 1250 })
  })
})

describe('keys', () => {
  const store = open('keys')

  test('whatever a URL keeps', async () => {
    for (const key of ['plain', 'deep/er/key', 'spaced out', 'ünï/日本', 'e\u0301', 'say "hi"', 'a+b&c=d', '[x]{y}`<z>|^', 'trailing.', 'CON', '.hidden', 'x/...', 'a//b', 'x/', '__proto__', 'k'.repeat(600)]) {
      await store.set(key, `value of ${key}`)
      assert.equal(await store.get(key), `value of ${key}`, key)
      assert.deepEqual((await store.list({ prefix: key })).blobs.map((blob) => blob.key), [key])
      await store.delete(key)
      assert.equal(await store.get(key), null)
    }
  })

  test('a % that is not encoded is refused, before it gets to a function', async () => {
    await assert.rejects(store.set('100%', 'x'), /400/)
  })

  test('a query is refused', async () => {
    await assert.rejects(store.set('what?now', 'x'), /400|encodeURIComponent/)
    await assert.rejects(store.get('what?now=1'), /400|encodeURIComponent/)
    await assert.rejects(store.delete('what?now'), /400|encodeURIComponent/)
    assert.deepEqual((await store.list()).blobs, [])
  })

  test('the client cuts off a fragment', async () => {
    await store.set('h#y', 'x')
    assert.equal(await store.get('h'), 'x')
    await store.delete('h#other')
    assert.equal(await store.get('h'), null)
  })

  test('what is encoded is decoded once', async () => {
    for (const key of ['what?now#then', 'a%2Fb', 'a/../b', '100%', 'ü', '%25']) {
      await store.set(encodeURIComponent(key), key)
      assert.equal(await store.get(encodeURIComponent(key)), key)
      assert.deepEqual((await store.list()).blobs.map((blob) => blob.key), [key])
      await store.delete(encodeURIComponent(key))
    }
  })

  test('an empty key after a slash is not the whole store', async () => {
    await store.set('kept', 'x')
    for (const key of ['#', '#x', '?', '?x', '.', 'a/..']) await assert.rejects(store.delete(key), key)
    assert.equal(await store.get('kept'), 'x')
    await store.delete('kept')
  })
})

describe('conditions', { skip: !has.conditions }, () => {
  const store = open('conditions')

  test('onlyIfNew', async () => {
    const first = await store.set('new', 'one', { onlyIfNew: true })
    assert.equal(first.modified, true)
    assert.equal(first.etag, (await store.getMetadata('new')).etag)
    assert.deepEqual(await store.set('new', 'two', { onlyIfNew: true }), { modified: false })
    assert.deepEqual(await store.setJSON('new', 2, { onlyIfNew: true }), { modified: false })
    assert.equal(await store.get('new'), 'one')
    await store.delete('new')
    assert.equal((await store.setJSON('new', 3, { onlyIfNew: true })).modified, true)
  })

  test('onlyIfMatch', async () => {
    assert.deepEqual(await store.set('match', 'x', { onlyIfMatch: '"none"' }), { modified: false })
    const { etag } = await store.set('match', 'one')
    assert.match(etag, /^"[^"]+"$/)
    const second = await store.set('match', 'two', { onlyIfMatch: etag })
    assert.equal(second.modified, true)
    assert.deepEqual(await store.set('match', 'three', { onlyIfMatch: etag }), { modified: false })
    assert.equal((await store.setJSON('match', 4, { onlyIfMatch: `W/${second.etag}` })).modified, true)
    await store.delete('match')
    assert.deepEqual(await store.set('match', 'five', { onlyIfMatch: second.etag }), { modified: false })
  })

  test('of 100 that only create, one wins', async () => {
    const results = await Promise.all(Array.from({ length: 100 }, (_, i) => store.setJSON('race', i, { onlyIfNew: true })))
    const won = results.flatMap((result, i) => (result.modified && result.etag ? [i] : []))
    assert.equal(won.length, 1)
    assert.equal(await store.get('race', { type: 'json' }), won[0])
  })

  test('100 loops of onlyIfMatch lose nothing', async () => {
    await store.setJSON('sum', 0)
    const add = async () => {
      for (;;) {
        const { data, etag } = await store.getWithMetadata('sum', { type: 'json' })
        const result = await store.setJSON('sum', data + 1, { onlyIfMatch: etag })
        if (result.modified) return assert.ok(result.etag, 'a write that failed was taken for a success')
      }
    }
    await Promise.all(Array.from({ length: 5 }, async () => { for (let i = 0; i < 20; i++) await add() }))
    assert.equal(await store.get('sum', { type: 'json' }), 100)
  })
})

describe('stores', () => {
  test('are apart', async () => {
    const [a, b] = [open('apart'), open('apart ü & more')]
    await a.set('k', 'a')
    await b.set('k', 'b')
    assert.deepEqual([await a.get('k'), await b.get('k')], ['a', 'b'])
  })

  test('of a deploy', async () => {
    const deployID = `d${process.env.KV_CLIENTS_RUN}${release.replace(/\W/g, '')}`.slice(0, 24)
    for (const name of [undefined, 'named']) {
      const store = getDeployStore({ ...options(name), deployID, region: 'us-east-2' })
      const site = getStore(options(unique('deploy')))
      await store.set('k', 'of the deploy')
      assert.equal(await store.get('k'), 'of the deploy')
      assert.equal(await site.get('k'), null)
      assert.equal(await (await entries('GET', encodeURIComponent(store.name) + '/k')).text(), 'of the deploy')
      await store.delete('k')
    }
    await assert.rejects(getStore(options(`deploy:${deployID}`)).set('k', 'x'), /400|deploys/)
  })

  test('listStores', { skip: !has.listStores }, async () => {
    const store = open('listed')
    await store.set('k', 'v')
    const { stores } = await listStores(options())
    assert.ok(stores.includes(decodeURIComponent(nameOf(store))), stores.join(' '))
    const pages = []
    for await (const page of listStores({ ...options(), paginate: true })) pages.push(...page.stores)
    assert.ok(pages.includes(decodeURIComponent(nameOf(store))), pages.join(' '))
  })

  test('a region means nothing', async () => {
    const name = unique('region')
    const [here, there] = [getStore(options(name)), getStore(options(name, { region: 'us-east-2' }))]
    used.push(here)
    await there.set('k', 'v')
    assert.equal(await here.get('k'), 'v')
    assert.equal((await there.list()).blobs.length, 1)
  })

  test('deleteAll', { skip: !has.deleteAll }, async () => {
    const [full, other] = [open('full'), open('other')]
    await other.set('k', 'v')
    await Promise.all(Array.from({ length: 30 }, (_, i) => full.set(`k/${i}`, 'v')))
    assert.deepEqual(await full.deleteAll(), { deletedBlobs: 30 })
    assert.deepEqual(await full.deleteAll(), { deletedBlobs: 0 })
    assert.equal(await other.get('k'), 'v')
  })
})

describe('kv-entries', () => {
  const store = open('shared')
  const path = (key) => `${nameOf(store)}/${key}`

  test('reads what the client wrote', async () => {
    await store.set('text', 'plain', { metadata: { a: 'ü' } })
    const text = await entries('GET', path('text'))
    assert.equal(text.headers.get('content-type'), 'text/plain; charset=utf-8')
    assert.deepEqual(JSON.parse(text.headers.get('x-kv-metadata')), { a: 'ü' })
    assert.equal(text.headers.get('etag'), (await store.getMetadata('text')).etag)
    assert.equal(await text.text(), 'plain')
    for (const set of [() => store.setJSON('json', { a: 1 }), () => store.set('json', '{"a":1}')]) {
      await set()
      const json = await entries('GET', path('json'))
      assert.equal(json.headers.get('content-type'), 'application/json')
      assert.deepEqual(await json.json(), { a: 1 })
    }
    await store.set('bytes', everyByte.buffer)
    assert.equal((await entries('GET', path('bytes'))).headers.get('content-type'), 'application/octet-stream')
  })

  test('writes what the client reads', async () => {
    const metadata = { a: 'ü'.repeat(600) } // more than the client itself may send
    const put = await entries('PUT', path('written'), { headers: { 'content-type': 'image/png', 'x-kv-metadata': JSON.stringify(metadata).replace(/ü/g, '\\u00fc').slice(0, 2048 - 2).replace(/(\\u?\w*)?$/, '') + '"}' }, body: everyByte })
    assert.equal(put.status, 201, await put.text())
    const { data, etag, metadata: read } = await store.getWithMetadata('written', { type: 'blob' })
    assert.equal(data.type, 'image/png')
    assert.equal(etag, put.headers.get('etag'))
    assert.match(read.a, /^ü+/)
    assert.deepEqual(new Uint8Array(await data.arrayBuffer()), everyByte)
  })

  test('expiry is exact, and a set ends it', async () => {
    const began = Date.now()
    for (const key of ['brief', 'kept']) await entries('PUT', path(key), { headers: { 'x-kv-ttl': '2' }, body: 'x' })
    const early = await store.get('brief')
    if (Date.now() - began < 1900) assert.equal(early, 'x') // a slow machine may have taken longer
    await store.set('kept', 'y')
    await new Promise((done) => setTimeout(done, 2100))
    assert.equal(await store.get('brief'), null)
    assert.equal(await store.getMetadata('brief'), null)
    assert.ok(!(await store.list()).blobs.some((blob) => blob.key === 'brief'))
    if (has.conditions) assert.equal((await store.set('brief', 'z', { onlyIfNew: true })).modified, true)
    assert.equal(await store.get('kept'), 'y')
  })
})

// In a Netlify function, the environment names the site's own Blobs. Options with both a siteID and a token override it.
test("the environment's context", async () => {
  const context = { siteID: 'site', token: 'other', edgeURL: 'http://127.0.0.1:9', uncachedEdgeURL: 'http://127.0.0.1:9' }
  process.env.NETLIFY_BLOBS_CONTEXT = Buffer.from(JSON.stringify(context)).toString('base64')
  try {
    const store = open('context')
    await store.set('k', 'v')
    assert.equal(await store.get('k'), 'v')
    if (has.listStores) await assert.rejects(listStores(options()), /fetch failed/, 'listStores asks the site itself')
  } finally {
    process.env.NETLIFY_BLOBS_CONTEXT = ''
  }
})

test('deleteAll of many, in the loop of the client', { skip: !has.deleteAll }, async () => {
  const many = Number(process.env.KV_CLIENTS_MANY)
  const store = open('many')
  for (let n = 0; n < many; n += 1000) {
    const operations = Array.from({ length: Math.min(1000, many - n) }, (_, i) => ({ op: 'put', key: `k/${n + i}`, value: 1 }))
    const response = await fetch(`${site}/api/kv/batch`, {
      method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ store: decodeURIComponent(nameOf(store)), operations }),
    })
    assert.equal(response.status, 200, await response.text())
  }
  assert.deepEqual(await store.deleteAll(), { deletedBlobs: many })
  assert.deepEqual((await store.list()).blobs, [])
})

test('a wrong token is refused', { skip: Boolean(process.env.KV_CLIENTS_OPEN) }, async () => {
  const store = getStore({ ...options(unique('closed')), token: 'wrong' })
  const says = /wrong token/
  for (const call of [() => store.get('k'), () => store.set('k', 'v'), () => store.delete('k'), () => store.list(), () => store.getMetadata('k')]) {
    await assert.rejects(call(), says)
  }
})
