import type { Sql, Transaction } from './client.ts'

/** What a token may do, as it is stored. The words are checked where tokens are made. */
type StoredGrant = { glob: string; actions: string[] }

/** An API token as it may be shown: its hash is in no column of this. */
export type TokenRow = {
  id: string
  name: string
  grants: StoredGrant[]
  admin: boolean
  createdBy: string
  createdAt: Date
  expiresAt: Date | null
  lastUsedAt: Date | null
  revokedAt: Date | null
}

const columns = (sql: Sql | Transaction) => sql`
  id, name, grants, admin, created_by as "createdBy", created_at as "createdAt", expires_at as "expiresAt",
  last_used_at as "lastUsedAt", revoked_at as "revokedAt"`

/** A token that holds now. `isStale`: its last use was noted so long ago that it is to be noted again. */
export type LiveToken = Pick<TokenRow, 'id' | 'name' | 'grants' | 'admin'> & { isStale: boolean }

/** How exactly the last use is known, in seconds. */
const usedEverySeconds = 300

/**
 * Looks up tokens, each by its id or by the hex of its hash; the answers stand in the order of the questions. Those that
 * were revoked or have expired are none.
 */
export async function findLiveTokens(
  sql: Sql,
  asked: readonly { id?: string; hash?: string }[],
): Promise<(LiveToken | undefined)[]> {
  const rows = await sql<(LiveToken & { i: number })[]>`
    select q.i::int, t.id, t.name, t.grants, t.admin,
      coalesce(t.last_used_at < now() - make_interval(secs => ${usedEverySeconds}), true) as "isStale"
    from unnest(${asked.map(({ id }) => id ?? null)}::uuid[], ${asked.map(({ hash }) => hash ?? null)}::text[])
      with ordinality as q (id, hash, i)
    join api_tokens t
      on t.id = coalesce(q.id, (select h.id from api_tokens h where h.hash = decode(q.hash, 'hex')))
    where t.revoked_at is null and (t.expires_at is null or t.expires_at > now())`
  const found: (LiveToken | undefined)[] = new Array(asked.length)
  for (const { i, ...token } of rows) found[i - 1] = token
  return found
}

/** Notes that a token is used now, unless that was noted a moment ago. */
export async function noteUse(sql: Sql, id: string): Promise<void> {
  await sql`
    update api_tokens set last_used_at = now()
    where id = ${id} and coalesce(last_used_at < now() - make_interval(secs => ${usedEverySeconds}), true)`
}

export type NewToken = Pick<TokenRow, 'name' | 'grants' | 'admin' | 'createdBy'> & {
  hash: Buffer
  expiresAt: Date | undefined
}

/** Undefined where the name is taken. */
export async function insertToken(sql: Sql, token: NewToken): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    insert into api_tokens (name, hash, grants, admin, created_by, expires_at)
    values (${token.name}, ${token.hash}, ${sql.json(token.grants)}, ${token.admin}, ${token.createdBy},
      ${token.expiresAt ?? null})
    on conflict (name) where revoked_at is null do nothing
    returning ${columns(sql)}`
  return row
}

/** Every token, those that hold first, then the newest. */
export async function listTokens(sql: Sql): Promise<TokenRow[]> {
  const rows = await sql<TokenRow[]>`
    select ${columns(sql)} from api_tokens
    order by revoked_at is not null, created_at desc, id`
  return [...rows]
}

/** Revokes the token of that id, or the one that has that name; again, it changes nothing. Undefined: there is none. */
export async function revokeToken(sql: Sql, idOrName: string): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    update api_tokens set revoked_at = coalesce(revoked_at, now())
    where id::text = ${idOrName} or (name = ${idOrName} and revoked_at is null)
    returning ${columns(sql)}`
  return row
}

/** A key for tokens of /token. `privateKey`: only of the one that signs. */
export type TokenKeyRow = { kid: string; publicKey: Buffer; privateKey: Buffer | null }

/** Keys whose tokens may still be good: the one that signs first. `seconds`: how long the longest is good. */
export async function listTokenKeys(sql: Sql, seconds: number): Promise<TokenKeyRow[]> {
  const rows = await sql<TokenKeyRow[]>`
    select kid, public_key as "publicKey", private_key as "privateKey" from token_keys
    where retired_at is null or retired_at > now() - make_interval(secs => ${seconds})
    order by retired_at is not null, retired_at desc`
  return [...rows]
}

/** Which of these keys there are; the answers stand in the order of the questions. */
export async function haveTokenKeys(sql: Sql, kids: readonly string[]): Promise<boolean[]> {
  const rows = await sql<{ kid: string }[]>`
    select kid from token_keys where kid = any(${kids as readonly string[]}::text[])`
  const there = new Set(rows.map((row) => row.kid))
  return kids.map((kid) => there.has(kid))
}

/** Makes a key the one that signs, unless there is one. */
export async function insertTokenKey(
  sql: Sql | Transaction,
  { kid, publicKey, privateKey }: { kid: string; publicKey: Buffer; privateKey: Buffer },
): Promise<void> {
  await sql`
    insert into token_keys (kid, public_key, private_key) values (${kid}, ${publicKey}, ${privateKey})
    on conflict do nothing`
}

/** Retires the key that signs, and erases its private part. */
export async function retireTokenKeys(tx: Transaction): Promise<void> {
  await tx`update token_keys set retired_at = now(), private_key = null where retired_at is null`
}
