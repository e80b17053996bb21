import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { newTokenKey, refreshSeconds, type TokenKey } from '../auth/registry-token.ts'
import { ask, askRead } from '../db/client.ts'
import { insertTokenKey, listTokenKeys, retireTokenKeys } from '../db/tokens.ts'
import type { Deps } from '../deps.ts'
import { lockAway, takeOut } from './key-vault.ts'

// The key that tokens of /token are signed with. The first process that needs one makes it; of two that do so at once,
// the index lets one through, and both use that. Each process holds the keys for a minute. After a rotation some sign with
// the old key for so long, which every process still checks; a new one that a process does not know yet makes it look.

const freshMs = 60_000
/** The key to sign with now. */
export async function signingKey(deps: Deps): Promise<TokenKey> {
  return (await keys(deps)).signing
}

/** The public key of a kid; undefined where no token by it can be good any more, or it never was ours. */
export async function checkingKey(deps: Deps, kid: string): Promise<KeyObject | undefined> {
  const known = (await keys(deps)).byKid.get(kid)
  if (known) return known
  // Made by another process a moment ago, or made up: that is one question for all who ask at the same time.
  if (!/^[\w-]{1,100}$/.test(kid) || !(await deps.together.tokenKey.load(kid))) return undefined
  delete deps.auth.keyring.loaded
  return (await keys(deps)).byKid.get(kid)
}

/** Puts a new key in the place of the one that signs. What that signed is good until it expires. */
export async function rotateTokenKey(deps: Deps): Promise<string> {
  const key = await newKey(deps)
  await ask(deps.db, (sql) =>
    sql.begin(async (tx) => {
      await retireTokenKeys(tx)
      await insertTokenKey(tx, key)
    }),
  )
  delete deps.auth.keyring.loaded
  return (await signingKey(deps)).kid
}

async function newKey(deps: Deps) {
  const key = await newTokenKey()
  return { ...key, privateKey: lockAway(deps, key.kid, key.privateKey) }
}

async function keys(deps: Deps): Promise<NonNullable<Deps['auth']['keyring']['loaded']>> {
  const { keyring } = deps.auth
  const { loaded } = keyring
  if (loaded && Date.now() - loaded.at < freshMs) return loaded
  const list = () => askRead(deps.db, (sql) => listTokenKeys(sql, refreshSeconds))
  let rows = await list()
  if (!rows[0]?.privateKey) {
    const key = await newKey(deps)
    await ask(deps.db, (sql) => insertTokenKey(sql, key))
    rows = await list()
  }
  const [first] = rows
  if (!first?.privateKey) throw new Error('no key to sign tokens with')
  const privateKey = createPrivateKey({ key: takeOut(deps, first.kid, first.privateKey), type: 'pkcs8', format: 'der' })
  const byKid = new Map(
    rows.map(({ kid, publicKey }) => [kid, createPublicKey({ key: publicKey, type: 'spki', format: 'der' })]),
  )
  keyring.loaded = { signing: { kid: first.kid, privateKey }, byKid, at: Date.now() }
  return keyring.loaded
}
