-- What supabase/migrations make of an empty database, for readers. "make verify" writes it; it is not to be edited or applied.
-- A comment in front of an object is the object's own. One behind it names who else may use it, and how.

-- Internals of the functions public.kv_*. Do not expose it.
create schema kv;
-- service_role: usage

-- A finished response. Ask PostgREST for it with Accept: application/vnd.kv+json.
create domain public."application/vnd.kv+json" as text;

-- An entry of the source, as kv_import takes it.
create type kv.imported as (
    value json,
    data bytea,
    content_type text,
    metadata json,
    pairs text[],
    silent boolean,
    is_index boolean,
    created timestamp with time zone,
    updated timestamp with time zone
);

-- An operation of a batch (Operation in pkg/kv), with the defaults of kv_store for its content type.
create type kv.operation as (
    action text,
    key text,
    value text,
    data text,
    content_type text,
    metadata text,
    ttl numeric,
    expires timestamp with time zone,
    indexes text[],
    if_match text[],
    if_none_match text[],
    delta numeric
);

-- What came of an operation.
create type kv.outcome as (
    code text,
    message text,
    existed boolean,
    entry kv.entry,
    info text,
    bytes text,
    room bigint,
    wrote boolean
);

-- How the entries of a query are found. See kv.query_source.
create type kv.query_plan as (
    ordered_by text,
    driver text,
    from_key text,
    to_key text,
    pairs text[],
    cover integer[],
    merged integer[],
    search tsquery,
    leads text[],
    others text[],
    needs_row boolean
);

-- The entries. Write value and indexes; the other columns follow from them.
create table public.kv_store (
    -- The key. In another store than kv, or in a namespace, kv.space() comes before it.
    key text collate "C" not null,
    -- The JSON text as it was written. In an index entry, the array that the members are appended to. Null where data has the bytes.
    value json,
    -- The bytes of an entry that is not JSON. In the store kv, only a migration brings such entries.
    data bytea,
    -- Length of value or data in bytes. It tells the size of a response before the values are read.
    bytes integer not null,
    -- The value for queries, with what jsonb cannot hold replaced. Null for index entries.
    document jsonb,
    -- The words of every string in value; see kv.search_vector. Null beyond 200 kB of value, and for index entries.
    search tsvector,
    -- The entry's indexes as "<key>:<member>", for people and tools. A string that is written here by hand is split at its last colon.
    indexes text[] not null default '{}'::text[],
    -- The exact form of indexes: {{key,member},...}. In indexes, the pairs (a:b, c) and (a, b:c) look the same.
    index_pairs text[] not null default '{}'::text[],
    -- True where kv.member may hold members of this entry.
    is_index boolean not null default false,
    -- True of an index entry that nobody has written: it was created when a member was added.
    auto_created boolean not null default false,
    -- True where document differs from value: \u0000 and half surrogate pairs became U+FFFD, numbers beyond numeric became text.
    replaced boolean not null default false,
    created_at timestamp with time zone not null default clock_timestamp(),
    updated_at timestamp with time zone not null default clock_timestamp(),
    -- Grows with every write of the key, also across a delete.
    revision bigint not null,
    -- The content type. Null: application/json for a value, application/octet-stream for data.
    content_type text,
    -- A JSON object that belongs to the entry.
    metadata json,
    -- From then on nobody sees the entry, and kv.remove_expired may remove it. Null: it stays.
    expires_at timestamp with time zone,
    constraint kv_store_pkey PRIMARY KEY (key) INCLUDE (expires_at)
);
-- row level security
-- service_role: all
CREATE INDEX kv_store_created_at ON public.kv_store USING btree (created_at, key);
CREATE INDEX kv_store_expires_at ON public.kv_store USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX kv_store_search ON public.kv_store USING gin (search) WITH (gin_pending_list_limit='512');
CREATE INDEX kv_store_unseen ON public.kv_store USING btree (key) WHERE (replaced OR ((search IS NULL) AND (NOT is_index)));
CREATE INDEX kv_store_updated_at ON public.kv_store USING btree (updated_at, key);
CREATE TRIGGER kv_store_clear_index BEFORE UPDATE OF value ON public.kv_store FOR EACH ROW EXECUTE FUNCTION kv.clear_index();
CREATE TRIGGER kv_store_count_delete AFTER DELETE ON public.kv_store FOR EACH STATEMENT EXECUTE FUNCTION kv.count_delete();
CREATE TRIGGER kv_store_count_rename AFTER UPDATE OF key ON public.kv_store FOR EACH STATEMENT EXECUTE FUNCTION kv.count_delete();
CREATE TRIGGER kv_store_delete_members AFTER DELETE ON public.kv_store FOR EACH ROW WHEN (old.is_index) EXECUTE FUNCTION kv.delete_members();
CREATE TRIGGER kv_store_derive BEFORE INSERT OR UPDATE ON public.kv_store FOR EACH ROW EXECUTE FUNCTION kv.derive_columns();
CREATE TRIGGER kv_store_lock_members_delete BEFORE DELETE ON public.kv_store FOR EACH ROW WHEN (old.is_index) EXECUTE FUNCTION kv.lock_members_of_row();
CREATE TRIGGER kv_store_lock_members_rename BEFORE UPDATE OF key ON public.kv_store FOR EACH ROW WHEN ((old.is_index AND (new.key <> old.key))) EXECUTE FUNCTION kv.lock_members_of_row();
CREATE TRIGGER kv_store_log AFTER INSERT OR DELETE OR UPDATE ON public.kv_store FOR EACH ROW EXECUTE FUNCTION kv.log_entry(); -- enable always
CREATE TRIGGER kv_store_log_truncate AFTER TRUNCATE ON public.kv_store FOR EACH STATEMENT EXECUTE FUNCTION kv.log_truncate(); -- enable always
CREATE TRIGGER kv_store_rename_members AFTER UPDATE OF key ON public.kv_store FOR EACH ROW WHEN ((old.is_index AND (new.key <> old.key))) EXECUTE FUNCTION kv.rename_members();
CREATE TRIGGER kv_store_renew_revision AFTER INSERT OR UPDATE OF key ON public.kv_store FOR EACH ROW EXECUTE FUNCTION kv.renew_revision();
CREATE TRIGGER kv_store_truncate AFTER TRUNCATE ON public.kv_store FOR EACH STATEMENT EXECUTE FUNCTION kv.truncate_store();
CREATE TRIGGER kv_store_update_postings AFTER INSERT OR DELETE OR UPDATE ON public.kv_store FOR EACH ROW EXECUTE FUNCTION kv.update_postings();

-- How many reads an instance compared since it last told; unanswered by the other store.
create table kv.comparison (
    request uuid not null,
    at timestamp with time zone not null default clock_timestamp(),
    primary_store text not null,
    matched integer not null,
    differed integer not null,
    unanswered integer not null,
    constraint comparison_pkey PRIMARY KEY (request)
);
-- row level security
-- service_role: all
CREATE INDEX comparison_at ON kv.comparison USING btree (at);

-- The last 10,000 differences that compared reads found: SHA-256 sums, never a key or a value.
create table kv.difference (
    id bigint not null generated always as identity,
    at timestamp with time zone not null default clock_timestamp(),
    primary_store text not null,
    function text not null,
    kind text not null,
    key_hash text not null,
    primary_digest text,
    other_digest text,
    constraint difference_kind CHECK ((kind = ANY (ARRAY['missing'::text, 'extra'::text, 'different'::text, 'order'::text]))),
    constraint difference_pkey PRIMARY KEY (id)
);
-- row level security
-- service_role: all

-- What the migration of a key's store has to know of it, while it is open.
create table kv.import (
    key text collate "C" not null,
    -- kv_store.revision as kv_import wrote it; a row with another one is foreign: somebody else's.
    revision bigint,
    -- A caller deleted the entry while the migration was open.
    deleted boolean not null default false,
    -- What became of the source's entry; null where only a caller has touched the key.
    state text,
    -- What the source's entry was: its revision there.
    source_revision text,
    -- Digest of the indexes that rules gave the entry.
    derived text,
    -- Why it failed, or what is to be known of it.
    problem json,
    constraint import_pkey PRIMARY KEY (key),
    constraint import_state CHECK ((state = ANY (ARRAY['imported'::text, 'removed'::text, 'absent'::text, 'foreign'::text, 'deleted'::text, 'failed'::text, 'skipped'::text])))
);
-- row level security
-- service_role: all

-- One row for each change: upserts, deletes, both keys of a rename, members added to an index. kv_prune_log removes old rows.
create table kv.log (
    transaction_id xid8 not null default pg_current_xact_id(),
    -- The key that changed. Null after a truncate, which changes every key.
    key text collate "C",
    -- The request that wrote. One that is sent again after its reply was lost is not applied twice.
    request uuid default (NULLIF(current_setting('kv.request'::text, true), ''::text))::uuid,
    -- True of a delete that found no entry: nothing changed. A repetition of the request gets the same response.
    missed boolean
);
-- row level security
-- replica identity full
-- service_role: all
CREATE INDEX log_request ON kv.log USING btree (request) WHERE (request IS NOT NULL);
CREATE INDEX log_transaction_id ON kv.log USING btree (transaction_id);
CREATE TRIGGER log_truncate_log AFTER TRUNCATE ON kv.log FOR EACH STATEMENT EXECUTE FUNCTION kv.log_truncate(); -- enable always

-- Every transaction before the horizon had ended at the time.
create table kv.log_mark (
    at timestamp with time zone not null default clock_timestamp(),
    horizon xid8 not null default pg_snapshot_xmin(pg_current_snapshot()),
    -- A mark of another epoch, which a dump may bring, says nothing here.
    epoch text not null default kv.epoch()
);
-- row level security
-- replica identity full
-- service_role: all

-- The members of index entries (kv_store.is_index). They follow the array in kv_store.value.
create table kv.member (
    index_key text collate "C" not null,
    member text collate "C" not null,
    -- The order of the members: that in which they were first added.
    "position" bigint not null default nextval('kv.member_position'::regclass),
    constraint member_pkey PRIMARY KEY (index_key, member)
);
-- row level security
-- service_role: all
CREATE TRIGGER member_log_delete AFTER DELETE ON kv.member REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION kv.log_members(); -- enable always
CREATE TRIGGER member_log_insert AFTER INSERT ON kv.member REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION kv.log_members(); -- enable always
CREATE TRIGGER member_log_truncate AFTER TRUNCATE ON kv.member FOR EACH STATEMENT EXECUTE FUNCTION kv.log_truncate(); -- enable always
CREATE TRIGGER member_log_update AFTER UPDATE ON kv.member REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION kv.log_members(); -- enable always

-- Of each store, the migration that is open, or the last one that was.
create table kv.migration (
    -- The space of the store (kv.space_of); empty for the store kv.
    space text collate "C" not null,
    -- Where the entries come from; further runs must name the same.
    source text not null,
    options json not null,
    -- The index rules of the last run.
    rules text[] not null default '{}'::text[],
    -- The pass of the run that is at work: what an earlier one sent and is late is refused.
    session uuid not null,
    holder text not null,
    -- Until then no other run may take over; renewed while one is at work.
    lease_until timestamp with time zone not null,
    -- How many entries the source listed last.
    listed bigint,
    -- The result of the last run.
    run json,
    opened_at timestamp with time zone not null default clock_timestamp(),
    closed_at timestamp with time zone,
    constraint migration_pkey PRIMARY KEY (space)
);
-- row level security
-- service_role: all

-- One row for each write whose copy in the other store is not confirmed. The write's transaction adds it, and the confirmation removes it. A repair copies what is left.
create table kv.outbox (
    id bigint not null generated always as identity,
    key text collate "C" not null,
    -- The store that was written first; the other one may lack the write.
    primary_store text not null,
    at timestamp with time zone not null default clock_timestamp(),
    request uuid,
    constraint outbox_pkey PRIMARY KEY (id),
    constraint outbox_primary_store CHECK ((primary_store = ANY (ARRAY['blobs'::text, 'supabase'::text])))
);
-- row level security
-- service_role: all
CREATE INDEX outbox_request ON kv.outbox USING btree (request) WHERE (request IS NOT NULL);

-- Which entries have an index. The triggers of kv_store keep it; do not write it by hand.
create table kv.posting (
    index_key text collate "C" not null,
    -- The member, or '' for "any member of this index".
    member text collate "C" not null,
    key text collate "C" not null,
    -- That of the entry, so that a read by an index need not visit the rows.
    expires_at timestamp with time zone,
    constraint posting_pkey PRIMARY KEY (index_key, member, key) INCLUDE (expires_at)
);
-- row level security
-- service_role: all

-- The responses to batches that wrote. kv_prune_log removes them after kv.log_retention().
create table kv.response (
    request uuid not null,
    -- What the batch was, where a caller gave it an Idempotency-Key.
    digest text,
    response text not null,
    at timestamp with time zone not null default clock_timestamp(),
    constraint response_pkey PRIMARY KEY (request)
);
-- row level security
-- service_role: all
CREATE INDEX response_at ON kv.response USING btree (at);

-- The results of the last verifications of each store, without keys.
create table kv.verification (
    id bigint not null generated always as identity,
    space text collate "C" not null,
    at timestamp with time zone not null default clock_timestamp(),
    result json not null,
    constraint verification_pkey PRIMARY KEY (id)
);
-- row level security
-- service_role: all

create sequence kv.delete_count increment by 1;
-- service_role: select, update, usage

create sequence kv.difference_id_seq increment by 1;
-- service_role: select, update, usage

create sequence kv.member_position increment by 1024;
-- service_role: select, update, usage

create sequence kv.outbox_id_seq increment by 1;
-- service_role: select, update, usage

create sequence kv.revision increment by 1;
-- service_role: select, update, usage

create sequence kv.verification_id_seq increment by 1;
-- service_role: select, update, usage

-- Applies operations, [kv.operation,...]: {"results","failed","version","outbox"}. Atomic: all or none. A batch with the same p_request is applied once, however often it arrives, and always gets the first response; p_digest tells batches with one p_request apart. p_mirror adds an outbox entry for every key of the store kv that changes.
create function public.kv_batch(p_operations jsonb, p_atomic boolean DEFAULT false, p_request uuid DEFAULT NULL::uuid, p_digest text DEFAULT NULL::text, p_mirror boolean DEFAULT false) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set plan_cache_mode=force_generic_plan;
-- service_role: execute

-- What changed since p_since, the cursor of an earlier call: {"cursor","all","keys"}. "all" is true where everything may have changed: without a cursor, with one of another epoch, of the future or beyond kv.log_retention(), after a truncate or more than p_limit changes, and while triggers are disabled.
create function public.kv_changes(p_since text DEFAULT NULL::text, p_limit integer DEFAULT 1000) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set enable_seqscan=off set enable_bitmapscan=off;
-- service_role: execute

-- Removes the entries under a prefix, if p_confirm is their number and not over p_most. The response is that of kv_delete.
create function public.kv_clear(p_prefix text, p_confirm integer, p_most integer, p_request uuid, p_mirror boolean DEFAULT false) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set statement_timeout=55s;
-- service_role: execute

-- Keeps what an instance's compared reads found since it last told. A request is counted once.
create function public.kv_compared(p_request uuid, p_primary text, p_matched integer, p_differed integer, p_unanswered integer, p_differences json) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Removes an entry, with the members of an index entry, and tells whether there was one. p_mirror adds an outbox entry.
create function public.kv_delete(p_key text, p_request uuid DEFAULT NULL::uuid, p_mirror boolean DEFAULT false) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- kv_digests_of the entries of a store after a key, in key order.
create function public.kv_digests(p_after text, p_limit integer, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- SHA-256 of the bytes, of the metadata ({} counts as none) and of the indexes of the keys that exist, and how many postings lack.
create function public.kv_digests_of(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- Enables the triggers of the log in every mode, which "enable trigger all" does not. For the owner of the tables, after a restore that disabled them.
create function public.kv_enable_logging() returns void
    language plpgsql volatile set search_path="";
-- service_role: execute

-- An entry: an object that describes it, a line break, and its bytes, JSON text where "json" is true and base64 otherwise. Empty where there is none. p_since: see kv_get.
create function public.kv_entry(p_key text, p_since text DEFAULT NULL::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- A page of a store: {"entries","prefixes","count","pagination"}. p_query is {"prefix","delimiter","metadata","limit","cursor"} (EntryQuery in pkg/kv). The other arguments are those of kv_query.
create function public.kv_entry_list(p_query jsonb, p_question text, p_since text DEFAULT NULL::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- The JSON text of a value; empty where there is no entry. With p_since, which is a cursor, or '' where there is none yet, kv_changes and a line break come first.
create function public.kv_get(p_key text, p_since text DEFAULT NULL::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- What kv doctor compares with the needs of the release: functions, tables, triggers, indexes, privileges, publications, clock.
create function public.kv_health() returns json
    language sql stable set search_path="";
-- service_role: execute

-- Imports entries with distinct keys, all or none, and remembers what became of them. A value is JSON text, data the base64 of other bytes (both null: the source has no such entry any more), content types have the defaults of kv_store, pairs are {{key,member},...} as text (null: leave what the row has), derived is the digest of pairs that rules give, silent that the source does not say which it has, times are microseconds since 1970 (null: now). With a state, failed or skipped, nothing is imported. The answer says of each: written, same (nothing to do), removed, absent, foreign (somebody else wrote it: left alone), indexed (foreign, and got indexes), deleted (a caller deleted it: left so), or the state.
create function public.kv_import(p_session uuid, p_keys text[], p_values text[], p_pairs text[], p_derived text[], p_silent boolean[], p_is_index boolean[], p_created bigint[], p_updated bigint[], p_states text[], p_revisions text[], p_problems text[], p_data text[] DEFAULT '{}'::text[], p_content_types text[] DEFAULT '{}'::text[], p_metadata text[] DEFAULT '{}'::text[]) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set statement_timeout=55s;
-- service_role: execute

-- What is known of imported keys, in order after one: [[key, revision, derived, state],...].
create function public.kv_import_page(p_after text, p_limit integer, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- The problems of keys after one: why they failed, or what is to be known of the others.
create function public.kv_import_problems(p_after text, p_limit integer, p_failed boolean, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- Makes comparing and sorting by the numbers at the path fast, and pageable with a cursor. Writes wait meanwhile: some seconds for a million entries. See kv_index_path_statement.
create function public.kv_index_path(p_path text) returns text
    language plpgsql volatile set search_path="";
-- service_role: execute

-- The statement of kv_index_path, to be run outside of a transaction. With concurrently, writes do not wait.
create function public.kv_index_path_statement(p_path text, p_concurrently boolean DEFAULT true) returns text
    language sql immutable strict set search_path="";
-- service_role: execute

-- The response of kv-list to a query that Go has checked and completed (Query in pkg/kv), in order by key or by a time. A limit of 0 means no limit. The other arguments are those of kv_query.
create function public.kv_list(p_query jsonb, p_values boolean, p_question text, p_since text DEFAULT NULL::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- Which migration of a store is open or was closed, without counting; null where there was none.
create function public.kv_migration_brief(p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- Ends the migration of a store: what it knew of the keys is forgotten, and deletes leave no mark any more. Whether one was open.
create function public.kv_migration_close(p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set lock_timeout=5s set statement_timeout=55s;
-- service_role: execute

-- Opens the migration for a pass of a run, or goes on with it: the answer is {}. p_own is the run's pass before. Else it says why not: {holder, held_for} where another run is at work, {closed_at} where it was closed and p_anew does not begin another one, {source, options} of an open one that is another.
create function public.kv_migration_open(p_source text, p_options text, p_rules text[], p_session uuid, p_holder text, p_lease double precision, p_own uuid, p_anew boolean, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set lock_timeout=5s;
-- service_role: execute

-- Keeps other runs away for so many seconds; 0 lets them in. The answer is how many writes from before the migration was opened may not have reached the source.
create function public.kv_migration_renew(p_session uuid, p_lease double precision, p_listed bigint, p_run text) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- The migration of a store, with counts: entries, what became of the source's, keys that callers deleted since it was opened, outbox entries; and the last verification.
create function public.kv_migration_status(p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- Adds outbox entries for keys that are about to be written in Blobs: [{"id","key","revision"},...], with the revisions of the entries here.
create function public.kv_mirror_begin(p_keys text[], p_request uuid) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Copies an entry from Blobs (p_value and p_data, which is the base64 of bytes that are not JSON, null: no entry), if it is still of the revision p_expected. With p_add, members were added there: the copy adds those that are missing here, and further members may have been added here since.
create function public.kv_mirror_copy(p_key text, p_expected text, p_value text, p_indexes text[], p_is_index boolean, p_add boolean, p_created bigint, p_updated bigint, p_request uuid, p_data text DEFAULT NULL::text, p_content_type text DEFAULT NULL::text, p_metadata text DEFAULT NULL::text, p_expires bigint DEFAULT NULL::bigint) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Confirms a copy of an entry in Blobs. If the row is still of p_revision, the outbox entry goes and the response is empty. Otherwise the response is kv.mirror_state.
create function public.kv_mirror_done(p_id bigint, p_key text, p_revision text) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Removes outbox entries whose copies are confirmed.
create function public.kv_mirror_forget(p_ids bigint[]) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Outbox entries after an id, from the oldest: [{"id","key","primary","revision"},...].
create function public.kv_mirror_outbox(p_after bigint, p_limit integer) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- [kv.mirror_state,...] for the keys.
create function public.kv_mirror_states(p_keys text[]) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- Removes up to 2,000 changes that every valid cursor has seen, and returns their number; and responses of kv.response that are too old to be asked for again. Some writes call it. Where it fails, it warns and returns 0, and the write goes on.
create function public.kv_prune_log() returns bigint
    language plpgsql volatile set search_path="";
-- service_role: execute

-- The response of kv-query to a query that Go has checked and completed (Query in pkg/kv). p_question is the digest of what it asks. p_since: see kv_get.
create function public.kv_query(p_query jsonb, p_question text, p_since text DEFAULT NULL::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=10s;
-- service_role: execute

-- The evidence for a switch, or for the way back, of the last so many hours. Reads and the outbox are those of the store kv, whichever store p_space is.
create function public.kv_readiness(p_hours double precision, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s;
-- service_role: execute

-- kv_mirror_copy of entries with distinct keys, all or none. The answer says of each whether it was still what was expected.
create function public.kv_restore(p_keys text[], p_expected text[], p_values text[], p_pairs text[], p_is_index boolean[], p_created bigint[], p_updated bigint[], p_data text[], p_content_types text[], p_metadata text[], p_expires bigint[]) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set statement_timeout=55s;
-- service_role: execute

-- The stores of a namespace that have entries: [{"store","count","more"},...]. A count stops at p_most.
create function public.kv_stores(p_namespace text, p_most integer) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set enable_seqscan=off;
-- service_role: execute

-- How many postings of a store there are that no entry's indexes have.
create function public.kv_stray_postings(p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set statement_timeout=55s set enable_nestloop=off;
-- service_role: execute

-- Undoes kv_index_path.
create function public.kv_unindex_path(p_path text) returns void
    language plpgsql volatile set search_path="";
-- service_role: execute

-- Creates or replaces an entry. p_value is JSON text and kept as it is. p_indexes is {{key,member},...}; null keeps the entry's indexes, {} clears them. A request with the same p_request is applied once, however often it arrives. p_mirror adds an outbox entry for every key that changes.
create function public.kv_upsert(p_key text, p_value text, p_indexes text[] DEFAULT NULL::text[], p_request uuid DEFAULT NULL::uuid, p_mirror boolean DEFAULT false) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="" set plan_cache_mode=force_generic_plan;
-- service_role: execute

-- Keeps the result of a verification of a store, and its last hundred.
create function public.kv_verification_add(p_result text, p_space text DEFAULT ''::text) returns public."application/vnd.kv+json"
    language plpgsql volatile set search_path="";
-- service_role: execute

-- kv_changes, a line break, and [[key, response of kv_get],...] for the keys and for those under the prefixes, within p_entries and p_bytes.
create function public.kv_warm_get(p_keys text[], p_prefixes text[], p_entries integer, p_bytes bigint) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="" set enable_seqscan=off;
-- service_role: execute

-- kv_changes, a line break, and the responses of kv_list to the arguments in p_lists, in order. Null stands for one that is too large or not JSON, and for those beyond p_bytes together.
create function public.kv_warm_list(p_lists jsonb, p_bytes bigint) returns public."application/vnd.kv+json"
    language plpgsql stable set search_path="";
-- service_role: execute

-- Adds the pairs that their index entries lack, and returns them. p_arrays are the index entries whose stored arrays may have members. The caller holds the locks of kv.lock_index.
create function kv.add_index_members(p_arrays text[], p_pairs text[]) returns text[]
    language plpgsql volatile set search_path="" set enable_seqscan=off;

-- Adds the members that an index entry lacks, in the given order. The caller holds the entry's row.
create function kv.add_members(p_key text, p_members text[]) returns void
    language plpgsql volatile set search_path="";

-- Applies one operation. What it reads must fit into p_room bytes. In an atomic batch, a row that is only read is locked as well. With p_careful, a value that Postgres refuses is an outcome, and otherwise an error.
create function kv.apply_operation(p_operation kv.operation, p_atomic boolean, p_careful boolean, p_room bigint) returns kv.outcome
    language plpgsql volatile set search_path="";

-- Applies a batch. results are those of the operations, in their order; failed is the first that failed, from 1. In an atomic batch it means that the caller must undo the others. written is the number of entries that it wrote.
create function kv.apply_operations(p_operations kv.operation[], p_atomic boolean, p_careful boolean, p_mirror boolean, p_request uuid, OUT results text[], OUT failed integer, OUT written integer) returns record
    language plpgsql volatile set search_path="";

-- The members among the elements of an array.
create function kv.array_members(p_array json) returns SETOF text
    language plpgsql immutable strict set search_path="";

-- The key as callers see it, without the space of its store.
create function kv.bare_key(p_key text) returns text
    language sql immutable parallel safe;

-- Names the request in the log. Returns the transaction that has applied it already, as after a lost reply; otherwise null.
create function kv.begin_request(p_request uuid) returns xid8
    language plpgsql volatile set search_path="";

-- Changes when transaction ids may have been used again: with another cluster, a restart or a crash.
create function kv.boot_id() returns text
    language plpgsql stable set search_path="";

-- Every pair of key and member that "<key>:<member>" may stand for: a member that looks like a number may be one, or text.
create function kv.candidate_pairs(p_pair text) returns TABLE(index_key text, member text)
    language plpgsql immutable strict parallel safe set search_path="";

-- kv_changes and a line break; empty without a cursor.
create function kv.changes_line(p_since text) returns text
    language sql stable;

create function kv.clear_index() returns trigger
    language plpgsql volatile set search_path="";

create function kv.count_delete() returns trigger
    language plpgsql volatile set search_path="";

-- The number of entries in a range of keys, up to p_most.
create function kv.count_entries(p_from text, p_to text, p_most integer) returns integer
    language plpgsql stable set search_path="";

-- The notice that the text of some min or max was cut.
create function kv.cut_notices(p_aggregates text) returns text[]
    language plpgsql immutable strict parallel safe set search_path="";

-- Identifies what row revisions can be compared in: the cluster, its timeline and the table.
create function kv.database_id() returns text
    language plpgsql stable set search_path="";

-- Deletes an entry for a caller, who has locked it.
create function kv.delete_entry(p_key text) returns void
    language plpgsql volatile set search_path="";

create function kv.delete_members() returns trigger
    language plpgsql volatile set search_path="";

-- The number of statements that deleted or renamed entries, modulo 2^20.
create function kv.deletes() returns bigint
    language sql volatile;

create function kv.derive_columns() returns trigger
    language plpgsql volatile set search_path="";

-- SHA-256 of the pairs in order, each as <bytes>:<key><bytes>:<member>.
create function kv.digest_pairs(p_pairs text[]) returns text
    language plpgsql immutable set search_path="";

-- Every string in the document, at any depth, with U+001E between them: a phrase does not cross it.
create function kv.document_strings(p_document jsonb) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The elements of a JSON array as text.
create function kv.element_texts(p_array jsonb) returns text[]
    language plpgsql immutable strict parallel safe set search_path="";

-- The elements of a JSON array.
create function kv.elements(p_array jsonb) returns jsonb[]
    language plpgsql immutable strict parallel safe set search_path="";

-- The bytes of an entry: JSON text, or base64 where data has them.
create function kv.entry_bytes(p_key text, p_value json, p_data bytea, p_is_index boolean) returns text
    language plpgsql stable set search_path="";

-- The expression for the entry's own key, createdAt or updatedAt, from a row s. Null for any other path.
create function kv.entry_field(p_path text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- A condition on one of the entry's own fields. The value is a text, or milliseconds since 1970 where times are compared.
create function kv.entry_field_condition(p_path text, p_op text, p_value text) returns text
    language plpgsql immutable strict set search_path="";

-- The fields of an object that describe an entry beside its bytes.
create function kv.entry_info(p_entry kv.entry, p_metadata boolean) returns text
    language plpgsql stable set search_path="";

-- Changes when transaction ids may have been used again or changes gone unlogged: with another cluster, a restart, a crash or a restore. See kv_enable_logging.
create function kv.epoch() returns text
    language plpgsql stable set search_path="";

-- Changes with every write of an entry, and never comes again for a key.
create function kv.etag(p_entry kv.entry) returns text
    language plpgsql stable set search_path="";

-- The exact JSON text at a path of any value.
create function kv.exact_part(p_value json, p_path text[]) returns text
    language plpgsql immutable strict set search_path="";

-- Begins a response of which something expires: chr(2), the milliseconds until the first does, and a line break. Empty where nothing does.
create function kv.expiry_line(p_expires_at timestamp with time zone) returns text
    language sql volatile;

-- The parts of an index filter (IndexFilter in pkg/kv) that must all hold. {"pair"} and {"exact"} are one index. An array holds when one element does, {"none"} when no element does.
create function kv.filter_parts(p_filter jsonb) returns SETOF jsonb
    language plpgsql immutable strict set search_path="";

-- The cursor of a page (Cursor in pkg/kv): base64url of JSON. p_question is the digest of what the page answers; p_position and p_key are those of its last entry.
create function kv.format_cursor(p_question text, p_position json, p_key text) returns text
    language plpgsql immutable set search_path="";

-- The pairs as "<key>:<member>" strings, in order, each once.
create function kv.format_pairs(p_pairs text[]) returns text[]
    language plpgsql immutable parallel safe set search_path="";

-- Whether kv_index_path was called for the path.
create function kv.has_path_index(p_path text[]) returns boolean
    language plpgsql stable strict set search_path="";

-- Whether the search has a phrase.
create function kv.has_phrase(p_query tsquery) returns boolean
    language plpgsql immutable strict parallel safe set search_path="";

-- Whether the condition of an operation holds of an entry, or of none (a null row).
create function kv.holds(p_operation kv.operation, p_entry kv.entry) returns boolean
    language plpgsql stable set search_path="";

-- A JSON text in which strings replace the numbers that numeric cannot hold.
create function kv.huge_numbers_as_text(p_json text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- Imports one entry whose row of kv.import the caller holds; what it returns: see kv_import. indexed is a foreign one that got indexes.
create function kv.import_entry(p_key text, p_entry kv.imported) returns text
    language plpgsql volatile set search_path="";

-- Makes these the imported members of an index entry, in this order. Their positions are negative: they come before those that were added live, which stay. The caller holds the entry's row.
create function kv.import_members(p_key text, p_members text[], p_new boolean) returns boolean
    language plpgsql volatile set search_path="";

-- What a key that was imported is now, beside its row in kv_store: kv.import.state, or lost, of a row that is gone and no caller deleted.
create function kv.import_state(i kv.import, p_key text, p_revision bigint) returns text
    language sql immutable parallel safe;

-- The sum of a number and p_delta.
create function kv.increment(p_document jsonb, p_delta numeric, OUT code text, OUT message text, OUT value text) returns record
    language plpgsql stable set search_path="";

-- The value of an index entry: the stored array, then its members.
create function kv.index_value(p_index_key text, p_stored text) returns text
    language plpgsql stable set search_path="";

-- Whether an entry with this expiry is seen.
create function kv.is_live(p_expires_at timestamp with time zone) returns boolean
    language sql stable parallel safe;

-- Whether jsonb cannot hold what is at the path.
create function kv.is_replaced(p_value json, p_path text[]) returns boolean
    language plpgsql immutable strict set search_path="";

-- The time as JavaScript's toISOString writes it.
create function kv.iso_time(p_time timestamp with time zone) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The answer of kv-list.
create function kv.list(p_query jsonb, p_values boolean, p_question text) returns text
    language plpgsql stable set search_path="" set enable_seqscan=off set enable_bitmapscan=off set enable_hashjoin=off set enable_nestloop=off set jit=off set max_parallel_workers_per_gather=0;

-- The bytes that an entry takes in a list with values: its key twice, and its value.
create function kv.list_cost(p_key text, p_bytes integer, p_is_index boolean) returns bigint
    language sql stable;

-- Not less than kv.list_cost, and found in half the time: a byte of a key is at most \u and four digits in JSON.
create function kv.list_cost_at_most(p_key text, p_bytes integer, p_is_index boolean) returns bigint
    language sql stable;

-- The list of a store.
create function kv.list_entries(p_query jsonb, p_question text) returns text
    language plpgsql stable set search_path="" set plan_cache_mode=force_generic_plan set enable_sort=off set enable_seqscan=off;

-- The answer of kv-list; null where it is not one of these lists, or its values do not fit into one.
create function kv.list_in_key_order(p_query jsonb, p_values boolean, p_question text) returns text
    language plpgsql stable set search_path="" set plan_cache_mode=force_generic_plan set enable_sort=off;

-- An entry in the data of a list. p_total is what the list takes up to it: only the first entry can be too large.
create function kv.list_value(p_key text, p_value json, p_is_index boolean, p_total numeric) returns text
    language sql stable;

-- Nothing can lock an entry that does not exist. So an atomic batch looks again at its end, when it holds all others, and one batch at a time. The index entries that it makes itself are not meant.
create function kv.lock_absent(p_keys text[]) returns void
    language plpgsql volatile set search_path="";

-- While a migration of its store is open: keeps kv_import away from the key until the transaction ends. Before any lock of kv_store.
create function kv.lock_import_key(p_key text) returns void
    language plpgsql volatile set search_path="";

-- Makes sure that an index entry exists and stays until the transaction ends: by a lock on its members, or with p_row on its row. True where its value is an array that may hold members. Without p_convert, a plain entry is only locked and stays as it is: null.
create function kv.lock_index(p_key text, p_row boolean, p_convert boolean DEFAULT true) returns boolean
    language plpgsql volatile set search_path="";

-- Locks the members of an index entry until the transaction ends. The caller holds the entry's row.
create function kv.lock_members(p_key text) returns void
    language plpgsql volatile set search_path="";

create function kv.lock_members_of_row() returns trigger
    language plpgsql volatile set search_path="";

create function kv.log_entry() returns trigger
    language plpgsql volatile set search_path="";

create function kv.log_members() returns trigger
    language plpgsql volatile set search_path="";

-- The largest age of a cursor of the change feed.
create function kv.log_retention() returns interval
    language sql immutable parallel safe set search_path="";

create function kv.log_truncate() returns trigger
    language plpgsql volatile set search_path="";

-- The present entry, whether the condition holds, and for a get or a take the bytes, which must fit into p_room.
create function kv.look_at_entry(p_operation kv.operation, p_lock boolean, p_room bigint) returns kv.outcome
    language plpgsql volatile set search_path="";

-- While a migration of its store is open: kv_import will not bring the entry back. Before any lock of kv_store, or after kv.lock_import_key.
create function kv.mark_deleted(p_key text) returns void
    language plpgsql volatile set search_path="";

-- Whether the text of the document matches a search.
create function kv.matches_search(p_document jsonb, p_search jsonb) returns boolean
    language plpgsql immutable strict set search_path="";

-- The number of bytes that the members add to the value of an index entry.
create function kv.member_bytes(p_index_key text) returns bigint
    language plpgsql stable set search_path="";

-- The member for a JSON string or number; null for other elements. A string that Postgres cannot hold is an error.
create function kv.member_from_json(p_element json) returns text
    language sql immutable parallel safe;

-- The member for a string.
create function kv.member_from_text(p_text text) returns text
    language sql immutable parallel safe;

-- The member as JSON.
create function kv.member_to_json(p_member text) returns text
    language sql stable parallel safe;

-- The member as it appears in "<key>:<member>".
create function kv.member_to_text(p_member text) returns text
    language sql immutable parallel safe;

-- An entry for the other store or a backup. The value is a JSON string, which keeps every byte of its text, or data the base64 of bytes that are not JSON.
create function kv.mirror_state(p_key text) returns json
    language plpgsql stable set search_path="";

-- When the next entry expires, of all stores. A page with an offset may be another one then: it depends on what it skips.
create function kv.next_expiry() returns timestamp with time zone
    language plpgsql stable set search_path="" set enable_seqscan=off;

-- The words of a text in order, without case, compatible forms and compositions of letters. U+001E separates words that are not in a row: those of two texts, and letters that are words by themselves with something between them.
create function kv.normalize_search_text(p_text text) returns text[]
    language plpgsql immutable strict parallel safe set search_path="";

-- The number at the path; null where it is something else, as "10" or true.
create function kv.number_at(p_document jsonb, p_path text[]) returns numeric
    language sql immutable parallel safe;

-- An outcome: {"existed","code","message"}, the fields of kv.entry_info and, of what was read, {"json","bytes"}. The bytes are a JSON string, which keeps every byte of their text.
create function kv.outcome_json(p_outcome kv.outcome) returns text
    language plpgsql stable set search_path="";

-- The size at which a page ends early, in bytes: as base64 (4/3) it still fits into kv.response_limit().
create function kv.page_limit() returns integer
    language plpgsql immutable parallel safe set search_path="";

-- The pairs {{key,member},...} as rows.
create function kv.pairs(p_pairs text[]) returns TABLE(ordinal integer, index_key text, member text)
    language sql immutable parallel safe;

-- The members of an array that reads exactly as an index entry with them would; null for any other value.
create function kv.parse_members(p_value text) returns text[]
    language plpgsql immutable strict set search_path="";

-- The pairs of "<key>:<member>" strings of an entry in a space. A string that no known pair formats to is split at its last colon, and its member is a string.
create function kv.parse_pairs(p_indexes text[], p_known text[], p_space text) returns text[]
    language plpgsql immutable set search_path="";

-- A path (pkg/kv, Path), dotted or a JSON Pointer, for jsonb's operators. Of a constant it is a constant, as the match with an index needs.
create function kv.parse_path(p_path text) returns text[]
    language plpgsql immutable strict parallel safe set search_path="";

-- The snapshot; null where the text is not one.
create function kv.parse_snapshot(p_text text) returns pg_snapshot
    language plpgsql immutable strict set search_path="";

-- The name of the index that kv_index_path makes.
create function kv.path_index_name(p_path text[]) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The postings of an entry with these pairs.
create function kv.postings_of(p_pairs text[]) returns TABLE(index_key text, member text)
    language sql immutable parallel safe;

-- The first text after every key with the prefix: the keys are those in [prefix, end).
create function kv.prefix_end(p_prefix text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- Creates or replaces an entry. p_present is what the caller has found: true of one that it has locked, even if that has just expired; false of none, and entry is null where another call has just created one.
create function kv.put_entry(p_operation kv.operation, p_present boolean, OUT existed boolean, OUT entry kv.entry) returns record
    language plpgsql volatile set search_path="";

-- The response of kv-query.
create function kv.query(p_query jsonb, p_question text) returns text
    language plpgsql stable set search_path="" set enable_seqscan=off set enable_sort=off set enable_hashjoin=off set enable_nestloop=off set jit=off set max_parallel_workers_per_gather=0;

-- The condition that an entry comes after the cursor. p_at and p_key are the time and the key to compare; other orders use the columns of kv.query_sort.
create function kv.query_after(p_query jsonb, p_at text, p_key text) returns text
    language plpgsql immutable strict set search_path="";

-- The expression that computes the aggregates over rows s.
create function kv.query_aggregate(p_aggregates jsonb) returns text
    language plpgsql immutable strict set search_path="";

-- The response to a query for aggregates.
create function kv.query_aggregates(p_query jsonb) returns text
    language plpgsql stable set search_path="";

-- How many entries meet a condition that an index serves, up to p_limit. p_lists_all tells that the index lists all of them before the first one. The result is p_limit where reading in key order fills the page with less.
create function kv.query_count(p_query jsonb, p_plan kv.query_plan, p_condition text, p_lists_all boolean, p_limit integer) returns bigint
    language plpgsql stable set search_path="";

-- The cursor of a page whose last entry has the key.
create function kv.query_cursor(p_query jsonb, p_question text, p_key text) returns text
    language plpgsql stable set search_path="";

-- Whose key and expires_at are an entry's in kv.query_source: d, postings, or s, rows of kv_store.
create function kv.query_entry(p_plan kv.query_plan) returns text
    language plpgsql immutable set search_path="";

-- The parts of a query's index filters that must all hold, as kv.filter_parts returns them.
create function kv.query_filters(p_query jsonb) returns jsonb
    language plpgsql immutable strict set search_path="";

-- An index filter's condition on <key>. The postings of the pairs in cover together have every match (null: no pairs do); cost is how many there are, and exact says that they have nothing else. p_positions comes from kv.query_pairs.
create function kv.query_index(p_filter jsonb, p_positions jsonb, p_counts bigint[], OUT condition text, OUT cover integer[], OUT cost bigint, OUT exact boolean) returns record
    language plpgsql immutable set search_path="";

-- The keys of a page. cursors: the order has cursors. cut: see kv.query_keys_by_relevance.
create function kv.query_keys(p_query jsonb, p_limit bigint, p_offset bigint, OUT keys text[], OUT cursors boolean, OUT cut boolean) returns record
    language plpgsql stable set search_path="";

-- The keys of a page in the order of an index of kv_index_path: the numbers, and after the last one the other entries.
create function kv.query_keys_by_number(p_query jsonb, p_plan kv.query_plan, p_limit bigint, p_offset bigint) returns text[]
    language plpgsql stable set search_path="";

-- The keys of a page, best match first. Only the first 10,000 matches by key are ranked; cut says that there were more.
create function kv.query_keys_by_relevance(p_query jsonb, p_limit bigint, p_offset bigint, OUT keys text[], OUT cut boolean) returns record
    language plpgsql stable set search_path="";

-- The field with the notices of a response, after a comma. Empty where there are none.
create function kv.query_notices(p_notices text[]) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The keys that a statement finds. $6 is its limit, $7 its offset.
create function kv.query_page(p_query jsonb, p_plan kv.query_plan, p_statement text, p_limit bigint, p_offset bigint) returns text[]
    language plpgsql stable set search_path="";

-- The pairs of key and member that the indexes in filters name. positions has the first and the last of each index, by the index's text.
create function kv.query_pairs(p_filters jsonb, OUT pairs text[], OUT positions jsonb) returns record
    language plpgsql stable set search_path="";

-- The paths of values that a query compares, sorts by or aggregates.
create function kv.query_paths(p_query jsonb) returns text[]
    language plpgsql immutable strict set search_path="";

-- How to find the entries of a query. With p_trusting, Postgres chooses how to read a prefix in order by time, which saves counting.
create function kv.query_plan(p_query jsonb, p_trusting boolean DEFAULT false) returns kv.query_plan
    language plpgsql stable set search_path="";

-- The response to a query for entries.
create function kv.query_results(p_query jsonb, p_question text) returns text
    language plpgsql stable set search_path="";

-- The columns to sort by, and their order. At a path, numbers come first, then strings (their first 200 characters), then other values, then entries without one.
create function kv.query_sort(p_sort jsonb, OUT columns text, OUT order_by text) returns record
    language plpgsql immutable strict set search_path="";

-- What follows "from": the entries that are seen and that one pair of the cover leads to, or all (null). kv.query_entry has their keys; s is a row of kv_store where it is that or p_row asks for it.
create function kv.query_source(p_plan kv.query_plan, p_pair integer, p_row boolean) returns text
    language plpgsql immutable set search_path="";

-- kv.query_source for a page in key order, of $6 entries from $7 on. Each list of postings is read only as far as the page needs.
create function kv.query_source_in_key_order(p_plan kv.query_plan, p_way text, p_row boolean) returns text
    language plpgsql immutable set search_path="";

-- The statement that finds $6 entries from $7 on, in their order: their key, and p_columns of a row s, which p_row asks for. An order that no index keeps takes all matches and sorts them.
create function kv.query_statement(p_query jsonb, p_plan kv.query_plan, p_columns text, p_row boolean) returns text
    language plpgsql immutable set search_path="";

-- Notices about values that a query cannot see: those that are not searched, and those of which something at one of its paths was replaced. Counted up to a bound, regardless of where.
create function kv.query_unseen(p_query jsonb) returns text[]
    language plpgsql stable strict set search_path="";

-- A condition on a row s of kv_store for each element of where. <key> stands for the key, wherever it is read from. An operator is added here and in pkg/kv (operators).
create function kv.query_where(p_where jsonb) returns text[]
    language plpgsql immutable strict set search_path="";

-- Ends a request for JSON that meets an entry of other bytes, as a migration may bring. Callers see the message.
create function kv.raise_not_json(p_key text) returns text
    language plpgsql stable set search_path="";

-- Ends a request whose response is too large. Callers see the message.
create function kv.raise_too_large(p_message text) returns text
    language plpgsql stable set search_path="";

-- Removes up to so many entries that have expired, and returns their number; none while a migration is open. Some writes call it.
create function kv.remove_expired(p_most integer) returns bigint
    language plpgsql volatile set search_path="";

create function kv.rename_members() returns trigger
    language plpgsql volatile set search_path="";

create function kv.renew_revision() returns trigger
    language plpgsql volatile set search_path="";

-- A JSON text in which p_escape replaces \u0000 and half surrogate pairs (\1 is the old escape without its backslash), and p_backslash escaped backslashes.
create function kv.replace_escapes(p_json text, p_escape text, p_backslash text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The platform's limit for a response, in bytes.
create function kv.response_limit() returns integer
    language plpgsql immutable parallel safe set search_path="";

-- What the entry takes in the response to a batch at most: its bytes as base64, metadata and the rest.
create function kv.room(p_entry kv.entry) returns bigint
    language plpgsql stable set search_path="";

-- The state of an entry: "<database>.<revision>.<members>" (RowRevision in pkg/kv), which grows within a database. Empty where there is no entry.
create function kv.row_revision(p_key text) returns text
    language plpgsql stable set search_path="";

-- The version of the newest migration. Every later file redefines it.
create function kv.schema_version() returns text
    language sql immutable parallel safe set search_path="";

-- What the search column of an entry must match. If the search has a phrase, kv.matches_search decides for entries without positions ("*", see kv.search_vector).
create function kv.search_query(p_search jsonb) returns tsquery
    language plpgsql immutable strict set search_path="";

-- The words of a search, [[{"text","not","prefix"},...],...]: all words of any branch. Null where there are none. Without p_phrases, it is what an entry without positions must match before kv.matches_search looks at it.
create function kv.search_terms(p_search jsonb, p_phrases boolean) returns tsquery
    language plpgsql immutable strict set search_path="";

-- The words of every string in the document, each by its first 500 letters. Null where there are too many. "*", which is not a word, tells that positions are missing: phrases must then be looked for in the document.
create function kv.search_vector(p_document jsonb, p_bytes integer) returns tsvector
    language plpgsql immutable set search_path="";

-- The index of kv_store that can serve the condition as a range, or null.
create function kv.serving_index(p_condition jsonb) returns text
    language plpgsql stable strict set search_path="";

-- Replaces the members of an index entry, in the given order. The caller holds the entry's row.
create function kv.set_members(p_key text, p_members text[]) returns void
    language plpgsql volatile set search_path="";

-- The number of bytes that a read of the entry returns.
create function kv.size(p_entry kv.entry) returns bigint
    language plpgsql stable set search_path="";

-- The space that the key is in: U+10FFFF, the namespace, a slash, the store and a slash (Space in pkg/kv). Empty for the store kv without a namespace.
create function kv.space_of(p_key text) returns text
    language sql immutable parallel safe;

-- The string at the path; null where it is something else.
create function kv.text_at(p_document jsonb, p_path text[]) returns text
    language sql immutable parallel safe;

-- Every write calls this at its end with the number of entries that it wrote. So more is removed than is written of what nobody needs: old changes and expired entries.
create function kv.tidy(p_written integer) returns void
    language plpgsql volatile set search_path="";

-- The column of kv_store for createdAt or updatedAt, null for any other path. The index kv_store_<column> keeps its order.
create function kv.time_column(p_path text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The value as jsonb, or null where jsonb cannot hold it.
create function kv.to_document(p_value json) returns jsonb
    language plpgsql immutable strict set search_path="";

-- A value that jsonb cannot hold, with the offending parts replaced, so that queries see the rest. Null where it is nested too deeply.
create function kv.to_readable_document(p_value json) returns jsonb
    language plpgsql immutable strict set search_path="";

create function kv.truncate_store() returns trigger
    language plpgsql volatile set search_path="";

create function kv.update_postings() returns trigger
    language plpgsql volatile set search_path="";

-- A row revision without the number of members.
create function kv.without_member_count(p_revision text) returns text
    language plpgsql immutable strict parallel safe set search_path="";

-- The response of kv-list with these keys. For a page, p_more says whether more entries follow. p_expires_at is when the first of them expires.
create function kv.write_list(p_query jsonb, p_question text, p_keys text[], p_values boolean, p_data text, p_more boolean, p_expires_at timestamp with time zone) returns text
    language plpgsql stable set search_path="";

-- The response to a write. Its version is the X-KV-Version of the endpoints; its outbox are the entries that p_mirror added.
create function kv.write_response(p_transaction xid8, p_deleted boolean, p_request uuid, p_mirror boolean) returns text
    language plpgsql stable set search_path="";
