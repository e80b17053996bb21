import { randomBytes } from 'node:crypto'
import { chown, lstat, mkdir, readFile, realpath, rename, rm, stat, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import type { Binaries } from './embedded-binaries.ts'
import { makePublicFolder, sweepUnfinished, syncFolder, unfinished } from './embedded-folders.ts'
import { run } from './embedded-process.ts'
import { canEnter, type User } from './embedded-user.ts'

type Place = { dataDir: string; stateDir: string; binaries: Binaries; user: User | undefined }

/**
 * The real path of the cluster `<dataDir>/postgres`, made by initdb when there is none.
 * Throws an Error in words when it belongs to another user, was made by another major version, or is no cluster.
 */
export async function prepareCluster(place: Place): Promise<string> {
  const path = join(place.dataDir, 'postgres')
  const present = await lstat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!present) await createCluster(path, place)
  const cluster = await realpath(path).catch((cause) => {
    throw new Error(
      `${path} points to a folder that is gone, and the registry's data with it. ` +
        'Restore that folder from a backup, or remove the link to start empty.',
      { cause },
    )
  })
  await refuseUnfit(cluster, place)
  return cluster
}

async function refuseUnfit(cluster: string, { dataDir, binaries, user }: Place): Promise<void> {
  const { uid } = await stat(cluster)
  const runsAs = user?.uid ?? process.getuid?.()
  if (uid !== runsAs) {
    throw new Error(
      `${cluster} belongs to user id ${uid}, but PostgreSQL would run as ${user ? `${user.name} (${runsAs})` : `user id ${runsAs}`}. ` +
        'Start PacksRegistry as the user who started it first, or set DATA_DIR to another folder.',
    )
  }
  if (user && !(await canEnter(user, cluster))) {
    throw new Error(
      `PostgreSQL runs as user ${user.name}, who cannot reach ${cluster}: a folder above it is private. ` +
        'Let others pass through that folder (chmod o+x), or set DATA_DIR to another folder.',
    )
  }
  const made = (await readFile(join(cluster, 'PG_VERSION'), 'utf8').catch(() => '')).trim()
  const [major] = binaries.version.split('.')
  if (made === '') {
    throw new Error(
      `${cluster} exists but holds no PostgreSQL cluster. Move it away, or set DATA_DIR to another folder.`,
    )
  }
  if (made !== major) {
    throw new Error(
      `The data in ${dataDir} was written by PostgreSQL ${made}; this release of PacksRegistry comes with PostgreSQL ${major}. ` +
        'Start the release that wrote it and carry the data over with a dump, or set DATABASE_URL to a PostgreSQL of your own.',
    )
  }
}

/**
 * initdb writes into a folder of its own beside the cluster's place; one rename, or one symbolic link, makes it the
 * cluster. Of several starters the first to do that wins, and the others remove what they made. The folder above is
 * synced: after a power cut the cluster is there, or it never was.
 */
async function createCluster(path: string, { dataDir, stateDir, binaries, user }: Place): Promise<void> {
  const elsewhere = user !== undefined && !(await canEnter(user, dataDir))
  const parent = elsewhere ? join(stateDir, 'clusters') : dataDir
  if (elsewhere) await makePublicFolder(parent)
  await sweepUnfinished(parent)
  const temp = unfinished(parent)
  const final = elsewhere ? join(parent, randomBytes(8).toString('hex')) : path
  try {
    await mkdir(temp, { mode: 0o700 })
    if (user) await chown(temp, user.uid, user.gid)
    await initdb(temp, binaries, user)
    await rename(temp, final)
    await syncFolder(parent)
    if (elsewhere) await symlink(final, path)
  } catch (error) {
    await rm(temp, { recursive: true, force: true })
    if (elsewhere) await rm(final, { recursive: true, force: true })
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EEXIST' || code === 'ENOTEMPTY') return
    if (code === undefined) throw error
    throw new Error(
      `The PostgreSQL cluster ${path} cannot be made: ${(error as Error).message}. ` +
        'Let this user write there, or set DATA_DIR to another folder.',
      { cause: error },
    )
  }
  await syncFolder(dataDir)
}

/** C.UTF-8 of the builtin provider: order by bytes, yet upper() and lower() know more than ASCII; no libc, no ICU. */
async function initdb(folder: string, { native }: Binaries, user: User | undefined): Promise<void> {
  const program = join(native, 'bin/initdb')
  const locale = ['--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--encoding=UTF8']
  const access = ['--username=postgres', '--auth-local=trust', '--auth-host=reject']
  await run(program, ['-D', folder, ...locale, ...access, '--no-instructions'], user)
}
