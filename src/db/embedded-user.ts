import { readFile, realpath, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** A user of this machine that PostgreSQL can run as. */
export type User = { readonly name: string; readonly uid: number; readonly gid: number }

/** In this order: a machine with PostgreSQL packages has the first, nearly every machine the second. */
const candidates = ['postgres', 'nobody']

/**
 * The user to start PostgreSQL as: `undefined`, the user of this process, unless that is root, which PostgreSQL
 * refuses to run as. Then the owner of the existing cluster if it is one of the two candidates, so that installing
 * a `postgres` user later changes nothing; else the first candidate that exists.
 * Throws an Error in words when there is none.
 */
export async function serverUser(cluster: string): Promise<User | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const users = await knownUsers()
  const owner = await stat(cluster).then(
    ({ uid }) => uid,
    () => undefined,
  )
  const user = users.find(({ uid }) => uid === owner) ?? users[0]
  if (user) return user
  throw new Error(
    'PostgreSQL does not run as root, and /etc/passwd has neither a user "postgres" nor "nobody" to run it as. ' +
      'Start PacksRegistry as an ordinary user, add such a user, or set DATABASE_URL to a PostgreSQL of your own.',
  )
}

async function knownUsers(): Promise<User[]> {
  const lines = (await readFile('/etc/passwd', 'utf8').catch(() => '')).split('\n')
  const users = lines.map((line) => {
    const [name = '', , uid, gid] = line.split(':')
    return { name, uid: Number(uid), gid: Number(gid) }
  })
  return candidates.flatMap((name) => users.filter((user) => user.name === name && user.uid > 0 && user.gid >= 0))
}

/**
 * Whether the user may pass through every folder from the root down to and including `path` (for a file: run it).
 * It reads owners and modes, not access control lists.
 */
export async function canEnter(user: User, path: string): Promise<boolean> {
  for (let folder = await realpath(path); ; folder = dirname(folder)) {
    const { mode, uid, gid } = await stat(folder)
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001
    if ((mode & bit) === 0) return false
    if (folder === dirname(folder)) return true
  }
}
