// Passes the writes of JavaScript functions on Netlify Blobs on to Supabase, until Supabase answers: docs/MIGRATION.md, step 4.
// Copy this file beside your functions. It needs Node 20 or newer, the store that your functions have from @netlify/blobs, and the
// variables SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY.
//
//   import { forward } from './kv-forward.mjs';
//
//   await forward(store, { key, indexes }, async (metadata) => {
//     await store.setJSON(key, value, { metadata });
//     // … and what your function does for its indexes
//   });
//
//   await forward(store, { key }, () => store.delete(key));
//
// Blobs is the primary store: whatever happens here, the write is done and the caller gets the same answer as before. For each key,
// Supabase ends in the state in which Blobs ended, also when writes race. A copy is not the write itself. It is what Blobs holds afterwards,
// written only over the state that Supabase was seen to have. Then Blobs is read again, until it has not changed.
//
// An outbox entry (kv.outbox) is added before the write and removed when the copy is there. After a crash it stays, and
// `kv migrate repair --primary blobs` makes the copy. The log names no key: {"level":"ERROR","msg":"mirror failed",…}. With
// `add outbox entries` in its error there is no outbox entry, and only `verify` finds the key.

const rounds = 50; // other writers of the same key copy it too

/**
 * Runs write, then copies the entry of key and the entries of its indexes from Blobs to Supabase.
 *
 * @param store    what getStore({ name: 'kv' }) returns
 * @param entry    its key, and indexes as kv-upsert takes them: [{ key, member }, …], or undefined if the write does not set them;
 *                 outboxTime and copyTime limit how many ms a write takes longer for its outbox entries, and for its copies
 * @param write    does the writing. It gets the metadata to write the entry with, which has the entry's indexes and times
 * @returns what write returns; its errors are the caller's
 */
export async function forward(store, { key, indexes, outboxTime = 2_000, copyTime = 5_000 }, write) {
  const pairs = pairsOf(indexes);
  const entries = await addOutboxEntries([...new Set([key, ...(pairs ?? []).map(([index]) => index)])], AbortSignal.timeout(outboxTime));
  const result = await write(await metadataFor(store, key, pairs));
  const copies = entries.map((entry) => copy(store, entry, entry.key !== key, AbortSignal.timeout(copyTime)));
  for (const { reason } of await Promise.allSettled(copies)) if (reason) failed(reason);
  return result;
}

async function addOutboxEntries(keys, signal) {
  try {
    return await rpc('kv_mirror_begin', { p_keys: keys, p_request: crypto.randomUUID() }, signal);
  } catch (error) {
    failed(new Error(`add outbox entries: ${error.message}`));
    return [];
  }
}

/** Copies the key of an outbox entry until its blob has not moved. isIndex: members were added, and only the missing ones are copied. */
async function copy(store, entry, isIndex, signal) {
  let expected = entry.revision; // from before the write: the copy is a compare-and-set on it
  for (let round = 0; round < rounds; round++) {
    const blob = await within(signal, store.getWithMetadata(entry.key, { type: 'text', consistency: 'strong' }));
    const { applied, revision } = await rpc('kv_mirror_copy', {
      p_key: entry.key, p_expected: expected, p_value: blob ? blob.data : null, p_is_index: isIndex, p_add: isIndex,
      p_indexes: blob?.metadata?.i ?? null, p_created: blob?.metadata?.c ?? null, p_updated: blob?.metadata?.u ?? null,
      p_request: crypto.randomUUID(),
    }, signal);
    expected = revision;
    if (applied && await within(signal, unchanged(store, entry.key, blob))) {
      await rpc('kv_mirror_forget', { p_ids: [entry.id] }, signal);
      return;
    }
  }
  throw new Error('others keep changing the entry');
}

async function unchanged(store, key, blob) {
  if (blob?.etag) return (await store.getMetadata(key, { consistency: 'strong' }))?.etag === blob.etag;
  return (await store.get(key, { type: 'text', consistency: 'strong' })) === (blob ? blob.data : null); // netlify dev gives no etags
}

/** What Blobs does not keep of an entry: c and u are its times in microseconds, i its indexes (s names a blob with many). */
async function metadataFor(store, key, pairs) {
  try {
    const before = await store.getMetadata(key, { consistency: 'strong' });
    const now = Date.now() * 1000;
    const metadata = { c: before ? before.metadata.c : now, u: now, i: pairs ?? (before ? before.metadata.i : []) };
    if (!pairs && before?.metadata.s) metadata.s = before.metadata.s;
    if (Buffer.byteLength(JSON.stringify(metadata)) > 1_400) delete metadata.i; // Blobs takes 2 kB; the index entries have them too
    return metadata;
  } catch (error) {
    failed(new Error(`read the metadata: ${error.message}`));
    return undefined;
  }
}

/** The indexes as [[key, member], …], without repeats; undefined if the write does not set them. As in kv-upsert, falsy ones are left out. */
function pairsOf(indexes) {
  if (!Array.isArray(indexes)) return undefined;
  const pairs = indexes.filter((index) => index?.key && index.member).map(({ key, member }) => [String(key), memberText(member)]);
  return [...new Map(pairs.map((pair) => [JSON.stringify(pair), pair])).values()];
}

/** A member as the database has it: a number is U+0001 and its text, and a string that begins with U+0001 gets one more in front. */
function memberText(member) {
  const text = String(member);
  return typeof member === 'number' || text.startsWith('\u0001') ? `\u0001${text}` : text;
}

/** Calls a function of the database, and repeats it after transient failures. The request's id makes sure that it is applied once. */
async function rpc(name, args, signal) {
  for (let pause = 100; ; pause *= 2) {
    const { value, error, transient } = await ask(name, args, signal);
    if (!error) return value;
    if (!transient || signal.aborted) throw error;
    await within(signal, new Promise((resolve) => setTimeout(resolve, pause)), error);
  }
}

async function ask(name, args, signal) {
  const { SUPABASE_URL: url, SUPABASE_SERVICE_ROLE_KEY: key } = process.env;
  if (!url || !key) return { error: new Error('SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY must be set') };
  const headers = { apikey: key, 'Content-Type': 'application/json', Accept: 'application/vnd.kv+json, application/json;q=0.5' };
  if (key.startsWith('eyJ')) headers.Authorization = `Bearer ${key}`; // a secret key is not a JWT, and goes into apikey alone
  try {
    const response = await fetch(`${url.replace(/\/*(\/rest\/v1)?\/*$/, '')}/rest/v1/rpc/${name}`, { method: 'POST', headers, body: JSON.stringify(args), signal });
    const text = await response.text();
    if (response.ok) return { value: text === '' ? null : JSON.parse(text) };
    const code = /"code":"(\w+)"/.exec(text)?.[1] ?? 'none';
    return { error: new Error(`${name}: status ${response.status}, code ${code}`), transient: response.status >= 500 || response.status === 429 };
  } catch (error) {
    return { error: new Error(`${name}: ${error.cause?.code ?? error.cause?.message ?? error.message}`), transient: true };
  }
}

/** The promise's result, unless the signal comes first. */
function within(signal, promise, reason = new Error('the time for the copy was over')) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(reason);
    const end = () => reject(reason);
    signal.addEventListener('abort', end, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', end));
  });
}

function failed(error) {
  console.error(JSON.stringify({ level: 'ERROR', msg: 'mirror failed', direction: 'blobs to supabase', error: error.message }));
}
