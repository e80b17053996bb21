import { createPrivateKey } from 'node:crypto'
import { maxSignatures } from '../bundles/dsse.ts'
import {
  type DistrustedKey,
  generateKey,
  type KeyId,
  type PublicKey,
  publicKeyOf,
  publicPem,
  readPublicKey,
  type SigningKey,
  shortKeyId,
} from '../bundles/keys.ts'
import { ask, askRead, type Transaction } from '../db/client.ts'
import * as rows from '../db/keys.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { lockAway, takeOut } from './key-vault.ts'

// Keys of this site, shared by all processes through PostgreSQL. Whatever changes them takes one lock, then looks, then
// writes: there are few keys and fewer changes. Who signs or verifies reads them anew each time, so a key that is
// distrusted is distrusted at once, on every process.

/** A key as it is told to others. `publicKey` is PEM. There is no private part in it, and no call that tells one. */
export type Key = {
  keyid: string
  name: string
  state: rows.KeyState
  own: boolean
  comment?: string
  publicKey: string
  createdAt: string
  expiresAt?: string
  retiredAt?: string
  distrustedAt?: string
}

function keyOf(row: rows.KeyRow): Key {
  const time = (name: 'expiresAt' | 'retiredAt' | 'distrustedAt') =>
    row[name] ? { [name]: row[name].toISOString() } : {}
  return {
    ...{ keyid: row.keyid, name: row.name, state: row.state, own: row.own },
    ...(row.comment === null ? {} : { comment: row.comment }),
    publicKey: publicPem(publicKeyOf(row.publicKey)),
    createdAt: row.createdAt.toISOString(),
    ...time('expiresAt'),
    ...time('retiredAt'),
    ...time('distrustedAt'),
  }
}

/** Every key, those in use first. */
export async function listKeys(deps: Deps): Promise<Key[]> {
  return (await askRead(deps.db, (sql) => rows.listKeys(sql))).map(keyOf)
}

/** A key by its key id, or by the name it has now. Throws KEY_UNKNOWN. */
export async function findKey(deps: Deps, idOrName: string): Promise<Key> {
  return keyOf((await askRead(deps.db, (sql) => rows.findKey(sql, idOrName))) ?? unknown(idOrName))
}

/** The last time that a key may end at: later years have five digits, which PostgreSQL does not read. */
const lastMs = Date.UTC(10_000, 0) - 1

type KeyOptions = { expiresAt?: Date | undefined; comment?: string | undefined }

/**
 * Makes a key of this site; bundles are signed with it from now on, beside the ones that sign already.
 * Throws KEY_EXISTS where the name is taken or as many keys sign as a bundle has room for.
 */
export function createKey(deps: Deps, name: string, options: KeyOptions = {}): Promise<Key> {
  return inTurn(deps, (tx) => create(deps, tx, name, options))
}

async function create(
  deps: Deps,
  tx: Transaction,
  name: string,
  { expiresAt, comment }: KeyOptions,
): Promise<rows.KeyRow> {
  if ((await rows.countSigning(tx)) >= maxSignatures)
    throw new Failure('KEY_EXISTS', {
      detail: `${maxSignatures} keys sign here, as many as a bundle has room for; retire one first`,
    })
  const { keyid, spki, pkcs8 } = generateKey()
  const key = { keyid, name, publicKey: spki, privateKey: lockAway(deps, keyid, pkcs8), expiresAt, comment }
  if (!(await rows.insertKey(tx, key))) throw taken(name)
  return (await rows.findKey(tx, keyid)) ?? unknown(keyid)
}

/**
 * Puts a successor in a key's place, under its name. The old key signs nothing any more, and what it signed is taken
 * until it expires. Without `expiresAt` the successor lives as long as the old key was meant to.
 * Throws KEY_UNKNOWN, KEY_NOT_SIGNING.
 */
export function rotateKey(deps: Deps, idOrName: string, { expiresAt }: KeyOptions = {}): Promise<Key> {
  return inTurn(deps, async (tx) => {
    const old = (await rows.lockKey(tx, idOrName)) ?? unknown(idOrName)
    if (!old.own || old.retiredAt || old.distrustedAt)
      throw new Failure('KEY_NOT_SIGNING', {
        detail: old.own
          ? `${old.name} (${shortKeyId(old.keyid as KeyId)}) was retired already; rotate the key that came after it`
          : `${old.name} is the key of another site; only that site can rotate it`,
      })
    const life = old.expiresAt ? old.expiresAt.getTime() - old.createdAt.getTime() : undefined
    const successor = {
      expiresAt: expiresAt ?? (life && new Date(Math.min(Date.now() + life, lastMs))),
      comment: old.comment ?? undefined,
    }
    await rows.retireKey(tx, old.keyid)
    return create(deps, tx, old.name, { ...successor, expiresAt: successor.expiresAt || undefined })
  })
}

/**
 * Trusts the public key (PEM) of another site: what it signed is taken from now on. The same again changes nothing.
 * Throws KEY_INVALID where it is no key that can be used, KEY_EXISTS where its name stands for another key.
 */
export function trustKey(deps: Deps, name: string, pem: string, { expiresAt, comment }: KeyOptions = {}): Promise<Key> {
  const { keyid, key } = readPublicKey(pem)
  const publicKey = key.export({ type: 'spki', format: 'der' })
  return inTurn(deps, async (tx) => {
    const known = await rows.lockKey(tx, keyid)
    const named = await rows.findKey(tx, name)
    if (named && named.keyid !== keyid) throw taken(name)
    if (known && !known.distrustedAt) {
      if (known.name === name && known.expiresAt?.getTime() === expiresAt?.getTime()) return known
      throw new Failure('KEY_EXISTS', {
        detail: `this key is trusted already, as ${known.name}; to change its name or end, distrust it first`,
        about: { keyid, name: known.name },
      })
    }
    if (known) await rows.restoreKey(tx, { keyid, name, expiresAt, comment })
    else if (!(await rows.insertKey(tx, { keyid, name, publicKey, privateKey: undefined, expiresAt, comment })))
      throw taken(name)
    return (await rows.findKey(tx, keyid)) ?? unknown(keyid)
  })
}

/**
 * Ends at once that a key is trusted, on every process, and that it signs, where it does: its private part is erased.
 * Again, it changes nothing. Throws KEY_UNKNOWN.
 */
export function distrustKey(deps: Deps, idOrName: string): Promise<Key> {
  return inTurn(deps, async (tx) => {
    const { keyid } = (await rows.lockKey(tx, idOrName)) ?? unknown(idOrName)
    await rows.distrustKey(tx, keyid)
    return (await rows.findKey(tx, keyid)) ?? unknown(keyid)
  })
}

/** The keys to sign with now; none: bundles go out unsigned. */
export async function signers(deps: Deps): Promise<SigningKey[]> {
  const found = await askRead(deps.db, (sql) => rows.signingKeys(sql))
  return found.map(({ keyid, privateKey }) => ({
    keyid: keyid as KeyId,
    privateKey: createPrivateKey({ key: takeOut(deps, keyid, privateKey), type: 'pkcs8', format: 'der' }),
  }))
}

/** `trusted`: what signatures are checked with, ours among them; `distrusted`: nothing is checked with them. */
export type KnownKeys = { trusted: PublicKey[]; distrusted: DistrustedKey[] }

/** Every key there is; expired ones too, for the check knows what that means. */
export async function knownKeys(deps: Deps): Promise<KnownKeys> {
  return byTrust(await askRead(deps.db, (sql) => rows.knownKeys(sql)))
}

/** The same as they are when the transaction ends: whoever would change one waits for that. */
export async function lockKnownKeys(tx: Transaction): Promise<KnownKeys> {
  return byTrust(await rows.lockKnownKeys(tx))
}

function byTrust(found: readonly rows.KnownKey[]): KnownKeys {
  return {
    trusted: found.flatMap(({ name, publicKey, expiresAt, distrustedAt }) =>
      distrustedAt ? [] : [{ ...publicKeyOf(publicKey), name, expiresAt: expiresAt ?? undefined }],
    ),
    distrusted: found.flatMap(({ keyid, name, distrustedAt }) => (distrustedAt ? [{ keyid, name, distrustedAt }] : [])),
  }
}

export async function trustedKeys(deps: Deps): Promise<PublicKey[]> {
  return (await knownKeys(deps)).trusted
}

async function inTurn(deps: Deps, change: (tx: Transaction) => Promise<rows.KeyRow>): Promise<Key> {
  const row = await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      await rows.lockKeys(tx)
      return change(tx)
    }),
  )
  return keyOf(row as rows.KeyRow)
}

function unknown(idOrName: string): never {
  throw new Failure('KEY_UNKNOWN', {
    detail: `there is no key ${JSON.stringify(idOrName.slice(0, 100))}: give its key id (sha256:…), or the name of one in use`,
  })
}

function taken(name: string): Failure {
  return new Failure('KEY_EXISTS', {
    detail: `${name} is the name of a key in use; take another name, or rotate that key`,
  })
}
