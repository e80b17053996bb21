import { ask } from '../db/client.ts'
import { privateKeys, replacePrivateKey } from '../db/keys.ts'
import type { Deps } from '../deps.ts'
import { seal, unseal } from './sealed.ts'

// Private keys at rest. With KEY_ENCRYPTION_FILE, what the database has of a private key is of no use to whoever has the
// database, or a backup of it, and nothing else. Without it they lie there as they are (PKCS 8 in DER, whose first byte is
// 0x30; that of an encrypted one is 1), and a server that is given the setting encrypts them when it starts.

const encrypted = Buffer.from([1])

/** A private key as it is stored. `id`: of the key: what is stored for one cannot be passed off as another's. */
export function lockAway({ keySecrets: [secret] }: Deps, id: string, pkcs8: Buffer): Buffer {
  return secret ? Buffer.concat([encrypted, seal(secret, purposeOf(id), pkcs8.toString('base64'))]) : pkcs8
}

/** The private key of what is stored. Throws an Error in words where none of the secrets opens it. */
export function takeOut({ keySecrets }: Deps, id: string, stored: Buffer): Buffer {
  if (stored[0] !== encrypted[0]) return stored
  for (const secret of keySecrets) {
    const text = unseal(secret, purposeOf(id), stored.subarray(1))
    if (text !== undefined) return Buffer.from(text, 'base64')
  }
  throw new Error(
    keySecrets.length === 0
      ? `The private key ${id} is encrypted. Set KEY_ENCRYPTION_FILE, as it was when the key was made`
      : `KEY_ENCRYPTION_FILE does not open the private key ${id}. Add the secret that it was encrypted with as a further line`,
  )
}

/**
 * Encrypts with the first secret whatever is not, and makes sure that everything can be opened. Any number of processes
 * may do so at once. Throws an Error in words where something cannot.
 */
export async function lockAwayAll(deps: Deps): Promise<void> {
  const [secret] = deps.keySecrets
  for (const { table, id, stored } of await ask(deps.db, privateKeys)) {
    const pkcs8 = takeOut(deps, id, stored)
    const isCurrent = stored[0] === encrypted[0] && secret && unseal(secret, purposeOf(id), stored.subarray(1))
    if (!secret || isCurrent) continue
    const again = lockAway(deps, id, pkcs8)
    await ask(deps.db, (sql) => replacePrivateKey(sql, { table, id, stored, again }))
  }
}

const purposeOf = (id: string) => `private key ${id}`
