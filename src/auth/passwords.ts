import bcrypt from 'bcryptjs'

/** User names and the bcrypt hashes of their passwords. */
export type Users = ReadonlyMap<string, string>

const bcryptHash = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/
/** bcrypt reads no more of a password; what is longer would be taken for its beginning. In bytes. */
const longestPassword = 72

/**
 * Reads an htpasswd file as `htpasswd -B` writes it. Throws an Error in words that names the line, and no hash.
 * Only bcrypt is taken: the other forms can be guessed at billions a second.
 */
export function parseUsers(text: string): Users {
  const users = new Map<string, string>()
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (!line.trim() || line.startsWith('#')) continue
    const colon = line.indexOf(':')
    const [name, hash] = [line.slice(0, colon), line.slice(colon + 1).trim()]
    if (colon <= 0) throw new Error(`line ${index + 1} is not "user:hash"`)
    const cost = Number(bcryptHash.exec(hash)?.[1] ?? 0)
    if (cost < 4 || cost > 16)
      throw new Error(`line ${index + 1}: the hash of ${name} is not bcrypt (cost 4 to 16); make it with htpasswd -B`)
    if (users.has(name)) throw new Error(`line ${index + 1} names ${name} a second time`)
    users.set(name, hash)
  }
  return users
}

/** Stands in for the hash of a user that there is not, so that asking for one takes as long. Nobody's password. */
function nobodyAmong(users: Users): string {
  const [someone = '$2b$10$'] = users.values()
  return `${someone.slice(0, 7)}Kq2ZyN4bVtE7xWcR9uJm1eUu0p5sHgDfLkQwXzCvBnM3rTyIoAaSd`
}

/** Whether that is the user's password. Takes as long for a user that there is not. */
export async function isPassword(users: Users, name: string, password: string): Promise<boolean> {
  const hash = users.get(name)
  const fits = Buffer.byteLength(password) <= longestPassword
  const matches = await bcrypt.compare(fits ? password : '', hash ?? nobodyAmong(users))
  return matches && fits && hash !== undefined
}
