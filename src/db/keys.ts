import type { Sql, Transaction } from './client.ts'

/**
 * `signing`: ours, and new bundles are signed with it. `verifying`: what it signed is taken; ours after a rotation, and
 * every other site's. `expired`, `distrusted`: what it signed is not taken.
 */
export const keyStates = ['signing', 'verifying', 'expired', 'distrusted'] as const
export type KeyState = (typeof keyStates)[number]

/** A key as it may be told to others: the private part is in no column of this. */
export type KeyRow = {
  keyid: string
  name: string
  state: KeyState
  /** Whether the key was made here. */
  own: boolean
  comment: string | null
  publicKey: Buffer
  createdAt: Date
  trustedAt: Date
  expiresAt: Date | null
  retiredAt: Date | null
  distrustedAt: Date | null
}

const columns = (sql: Sql | Transaction) => sql`
  keyid, name, own, comment, public_key as "publicKey", created_at as "createdAt", trusted_at as "trustedAt",
  expires_at as "expiresAt", retired_at as "retiredAt", distrusted_at as "distrustedAt",
  case when distrusted_at is not null then 'distrusted' when expires_at <= now() then 'expired'
    when private_key is not null then 'signing' else 'verifying' end as state`

/** Every key there ever was, those in use first, then by name. */
export async function listKeys(sql: Sql | Transaction): Promise<KeyRow[]> {
  const rows = await sql<KeyRow[]>`
    select ${columns(sql)} from signing_keys
    order by distrusted_at is not null, retired_at is not null, name, created_at, keyid`
  return [...rows]
}

/** The key of that key id, or the one that has that name now. */
export async function findKey(sql: Sql | Transaction, idOrName: string): Promise<KeyRow | undefined> {
  const [row] = await sql<KeyRow[]>`
    select ${columns(sql)} from signing_keys
    where keyid = ${idOrName} or (name = ${idOrName} and retired_at is null and distrusted_at is null)`
  return row
}

/** The same, locked until the transaction ends: changes of one key take turns. */
export async function lockKey(tx: Transaction, idOrName: string): Promise<KeyRow | undefined> {
  const [row] = await tx<KeyRow[]>`
    select ${columns(tx)} from signing_keys
    where keyid = ${idOrName} or (name = ${idOrName} and retired_at is null and distrusted_at is null)
    for update`
  return row
}

/** Private parts of the keys that sign now, PKCS 8, by key id. They leave the database for a signature and nothing else. */
export async function signingKeys(sql: Sql): Promise<{ keyid: string; privateKey: Buffer }[]> {
  const rows = await sql<{ keyid: string; privateKey: Buffer }[]>`
    select keyid, private_key as "privateKey" from signing_keys
    where private_key is not null and (expires_at is null or expires_at > now()) order by keyid`
  return [...rows]
}

/** What a signature is judged by. */
export type KnownKey = Pick<KeyRow, 'keyid' | 'name' | 'publicKey' | 'expiresAt' | 'distrustedAt'>

/** Every key there ever was, by one statement: those that expired or are distrusted as well, for that is to be said. */
export async function knownKeys(sql: Sql): Promise<KnownKey[]> {
  const rows = await sql<KnownKey[]>`
    select keyid, name, public_key as "publicKey", expires_at as "expiresAt", distrusted_at as "distrustedAt"
    from signing_keys order by keyid`
  return [...rows]
}

/** The same, and none of them changes until the transaction ends. */
export async function lockKnownKeys(tx: Transaction): Promise<KnownKey[]> {
  const rows = await tx<KnownKey[]>`
    select keyid, name, public_key as "publicKey", expires_at as "expiresAt", distrusted_at as "distrustedAt"
    from signing_keys order by keyid for share`
  return [...rows]
}

export type NewKey = {
  keyid: string
  name: string
  publicKey: Buffer
  privateKey: Buffer | undefined
  expiresAt: Date | undefined
  comment: string | undefined
}

/** Adds a key. False where its name is taken, or it is there. */
export async function insertKey(sql: Sql | Transaction, key: NewKey): Promise<boolean> {
  const rows = await sql`
    insert into signing_keys (keyid, name, public_key, private_key, own, expires_at, comment)
    values (${key.keyid}, ${key.name}, ${key.publicKey}, ${key.privateKey ?? null}, ${key.privateKey !== undefined},
      ${key.expiresAt ?? null}, ${key.comment ?? null})
    on conflict do nothing returning keyid`
  return rows.length > 0
}

/** Trusts a key again that was distrusted; one of ours only verifies from then on. */
export async function restoreKey(
  tx: Transaction,
  { keyid, name, expiresAt, comment }: Pick<NewKey, 'keyid' | 'name' | 'expiresAt' | 'comment'>,
): Promise<void> {
  await tx`
    update signing_keys set distrusted_at = null, trusted_at = now(), name = ${name}, comment = ${comment ?? null},
      expires_at = ${expiresAt ?? null}, retired_at = case when own then retired_at end
    where keyid = ${keyid}`
}

/** Ends that a key signs, and erases its private part. What it signed is taken as before. */
export async function retireKey(tx: Transaction, keyid: string): Promise<void> {
  await tx`update signing_keys set retired_at = now(), private_key = null where keyid = ${keyid}`
}

/** Ends that a key is trusted, and erases its private part. */
export async function distrustKey(tx: Transaction, keyid: string): Promise<void> {
  await tx`
    update signing_keys
    set distrusted_at = now(), retired_at = coalesce(retired_at, now()), private_key = null
    where keyid = ${keyid} and distrusted_at is null`
}

/** How many keys sign. */
export async function countSigning(tx: Transaction): Promise<number> {
  const [row] = await tx<{ count: number }[]>`
    select count(*)::int as count from signing_keys where private_key is not null`
  return row?.count ?? 0
}

/** Keys are made, trusted and rotated one after the other. */
export async function lockKeys(tx: Transaction): Promise<void> {
  await tx`select pg_advisory_xact_lock(${7_225_748_104}::bigint)`
}

/** What is stored of a private key, of those that sign bundles and those that sign tokens. */
type StoredKey = { table: 'signing_keys' | 'token_keys'; id: string; stored: Buffer }

export async function privateKeys(sql: Sql): Promise<StoredKey[]> {
  const rows = await sql<StoredKey[]>`
    select 'signing_keys' as table, keyid as id, private_key as stored from signing_keys where private_key is not null
    union all
    select 'token_keys', kid, private_key from token_keys where private_key is not null`
  return [...rows]
}

/** Stores a private key in another form, unless it was replaced or erased in the meantime. */
export async function replacePrivateKey(
  sql: Sql,
  { table, id, stored, again }: StoredKey & { again: Buffer },
): Promise<void> {
  if (table === 'signing_keys')
    await sql`update signing_keys set private_key = ${again} where keyid = ${id} and private_key = ${stored}`
  else await sql`update token_keys set private_key = ${again} where kid = ${id} and private_key = ${stored}`
}
