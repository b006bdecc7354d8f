-- The lines of supabase/schema.sql, of what there is in public and kv. They are the same on Postgres 15 and 17.
with namespace as (
    select oid, nspname, nspacl, nspowner, array_position('{public,kv}'::text[], nspname::text) as place
    from pg_namespace where nspname in ('public', 'kv')
), relation as (
    select c.*, n.place, format('%I.%I', n.nspname, c.relname) as name
    from pg_class as c join namespace as n on n.oid = c.relnamespace
), access as ( -- of everybody but the owner
    select 'relation' as kind, oid, relacl as acl, relowner as owner from relation
    union all
    select 'function', p.oid, p.proacl, p.proowner from pg_proc as p join namespace as n on n.oid = p.pronamespace
    union all
    select 'schema', oid, nspacl, nspowner from namespace
), granted as (
    select kind, oid, '-- ' || string_agg(line, '; ' order by line) as line
    from (
        select a.kind, a.oid, coalesce(r.rolname, 'public') || ': ' || case when count(*) = 7 then 'all' else string_agg(lower(e.privilege_type), ', ' order by e.privilege_type) end as line
        from access as a cross join aclexplode(a.acl) as e left join pg_roles as r on r.oid = e.grantee
        where e.grantee <> a.owner and e.privilege_type <> 'MAINTAIN' -- which is new in Postgres 17
        group by a.kind, a.oid, r.rolname
    ) as grantees
    group by kind, oid
), attribute as (
    select a.attrelid as relation, a.attnum, format('    %I %s', a.attname, format_type(a.atttypid, a.atttypmod))
        || case when a.attcollation not in (0, t.typcollation) then ' collate "' || l.collname || '"' else '' end
        || case when a.attnotnull then ' not null' else '' end
        || case when a.attidentity = 'a' then ' generated always as identity' when d.oid is null then ''
            else ' default ' || pg_get_expr(d.adbin, d.adrelid) end as line,
        col_description(a.attrelid, a.attnum) as comment
    from pg_attribute as a join pg_type as t on t.oid = a.atttypid
        left join pg_collation as l on l.oid = a.attcollation
        left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attnum > 0 and not a.attisdropped
), part as ( -- of a table or a composite type, in the order in which it is written
    select relation, 1 as place, attnum::text as name, attnum as n, line, comment from attribute
    union all
    select conrelid, 2, conname::text, 0, format('    constraint %I %s', conname, pg_get_constraintdef(oid)), obj_description(oid, 'pg_constraint')
    from pg_constraint where contype in ('p', 'u', 'c', 'x', 'f')
), body as (
    select relation, string_agg(case when comment is null then '' else '    -- ' || comment || E'\n' end || line
        || case when last then '' else ',' end, E'\n' order by place, n, name collate "C") as text
    from (select *, row_number() over (partition by relation order by place desc, n desc, name collate "C" desc) = 1 as last from part) as parts
    group by relation
), beside as ( -- what comes after a table
    select i.indrelid as relation, 1 as place, c.relname::text as name, pg_get_indexdef(i.indexrelid) || ';' as line
    from pg_index as i join pg_class as c on c.oid = i.indexrelid
    where not exists (select from pg_constraint as k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
    union all
    select t.tgrelid, 2, t.tgname::text, pg_get_triggerdef(t.oid) || ';' || case t.tgenabled when 'O' then '' when 'A' then ' -- enable always' else ' -- ' || t.tgenabled::text end
    from pg_trigger as t where not t.tgisinternal
), object as (
    select 1 as kind, place, nspname::text as name,
        concat_ws(E'\n', '-- ' || obj_description(oid, 'pg_namespace'), 'create schema ' || nspname || ';',
            (select line from granted as g where g.kind = 'schema' and g.oid = n.oid)) as text
    from namespace as n where nspname <> 'public'
    union all
    select 2, n.place, t.typname::text, concat_ws(E'\n', '-- ' || obj_description(t.oid, 'pg_type'),
        case when t.typtype = 'd' then format('create domain %I.%I as %s;', n.nspname, t.typname, format_type(t.typbasetype, t.typtypmod))
            else format(E'create type %I.%I as (\n%s\n);', n.nspname, t.typname, b.text) end)
    from pg_type as t join namespace as n on n.oid = t.typnamespace left join pg_class as c on c.oid = t.typrelid left join body as b on b.relation = c.oid
    where t.typtype = 'd' or c.relkind = 'c'
    union all
    select 3, r.place, r.name, concat_ws(E'\n', '-- ' || obj_description(r.oid, 'pg_class'), format(E'create table %s (\n%s\n);', r.name, b.text),
        case when r.relrowsecurity then '-- row level security' end,
        case when r.relreplident = 'f' then '-- replica identity full' end,
        (select line from granted as g where g.kind = 'relation' and g.oid = r.oid),
        (select string_agg(line, E'\n' order by place, name collate "C") from beside where relation = r.oid))
    from relation as r join body as b on b.relation = r.oid where r.relkind in ('r', 'p')
    union all
    select 4, r.place, r.name, concat_ws(E'\n', '-- ' || obj_description(r.oid, 'pg_class'),
        format('create sequence %s increment by %s;', r.name, s.seqincrement),
        (select line from granted as g where g.kind = 'relation' and g.oid = r.oid))
    from relation as r join pg_sequence as s on s.seqrelid = r.oid
    union all
    select 5, n.place, p.proname || '(' || pg_get_function_identity_arguments(p.oid), concat_ws(E'\n', '-- ' || obj_description(p.oid, 'pg_proc'),
        format(E'create function %I.%I(%s) returns %s\n    language %s %s%s%s%s%s;', n.nspname, p.proname, pg_get_function_arguments(p.oid),
            pg_get_function_result(p.oid), l.lanname, case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
            case when p.proisstrict then ' strict' else '' end, case p.proparallel when 's' then ' parallel safe' else '' end,
            case when p.prosecdef then ' security definer' else '' end, (select string_agg(' set ' || setting, '') from unnest(p.proconfig) as setting)),
        case when n.nspname = 'public' then (select line from granted as g where g.kind = 'function' and g.oid = p.oid) end)
    from pg_proc as p join namespace as n on n.oid = p.pronamespace join pg_language as l on l.oid = p.prolang
)
select text from object order by kind, place, name collate "C"
