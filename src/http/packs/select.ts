import { askRead } from '../../db/client.ts'
import { type ListedVersion, listVersions, type Runners, type VersionRow } from '../../db/pack-versions.ts'
import type { Deps } from '../../deps.ts'
import { Failure } from '../../errors.ts'
import { parseTag, type Tag } from '../../oci/reference.ts'
import { roleOf } from '../../packs/channel.ts'
import type { PackId } from '../../packs/pack.ts'
import {
  compareVersions,
  isPrerelease,
  parseRange,
  parseVersion,
  precedenceOf,
  satisfies,
  type Version,
} from '../../packs/version.ts'

/**
 * The version that a selector names: an exact one, a channel, `latest`, or the highest that a range accepts. A yanked
 * version only by its number. Throws PACK_UNKNOWN; VERSION_UNKNOWN that names the nearest ones; RUNNER_TOO_OLD that
 * names the newest one for this runner.
 */
export async function selectVersion(
  deps: Deps,
  packId: PackId,
  selector: string,
  runner: Version | undefined,
): Promise<VersionRow> {
  const version = parseVersion(selector)
  const tag = version ? undefined : channelOf(selector)
  const row = version || tag ? await deps.together.packVersion.load({ packId, version, tag }) : undefined
  if (row && (!runner || runsOn(row, runner))) return row
  const all = await askRead(deps.db, (sql) => listVersions(sql, packId))
  if (!all) throw new Failure('PACK_UNKNOWN', { detail: `there is no pack ${packId}` })
  if (row && runner) throw tooOld(packId, row.version, runner, all)
  const range = version ? undefined : parseRange(selector)
  if (!range || selector === 'latest') throw unknown(packId, selector, all)
  const accepted = all.filter((entry) => entry.state !== 'yanked' && satisfies(entry.version, range))
  const found = accepted.find((entry) => !runner || runsOn(entry, runner))
  // The list does not say all of it.
  const whole = found && (await deps.together.packVersion.load({ packId, version: found.version }))
  if (whole) return whole
  const [highest] = accepted
  throw highest && runner ? tooOld(packId, highest.version, runner, all) : unknown(packId, selector, all)
}

/** The channel that a selector may be, `latest` among them; a range may look like one too. */
export function channelOf(selector: string): Tag | undefined {
  const tag = parseTag(selector)
  return tag && ['channel', 'latest'].includes(roleOf(tag).kind) ? tag : undefined
}

/** What `GET /packs/{id}` shows: the latest version, or the newest one that this runner can run. */
export async function selectShown(deps: Deps, packId: PackId, runner: Version | undefined): Promise<VersionRow> {
  const latest = await deps.together.packVersion.load({ packId, tag: 'latest' })
  if (latest && (!runner || runsOn(latest, runner))) return latest
  const all = await askRead(deps.db, (sql) => listVersions(sql, packId))
  const [newest] = all ?? []
  if (!all || !newest) throw new Failure('PACK_UNKNOWN', { detail: `there is no pack ${packId}` })
  const found = newestFor(all, runner)
  if (!found && runner) throw tooOld(packId, newest.version, runner, all)
  const { version } = found ?? newest
  // The list does not say all of it.
  const whole = await deps.together.packVersion.load({ packId, version })
  if (!whole) throw unknown(packId, version, all)
  return whole
}

/** The newest that is not yanked and runs; a pre-release only where there is no release. */
function newestFor(all: ListedVersion[], runner: Version | undefined): ListedVersion | undefined {
  const fit = all.filter((entry) => entry.state !== 'yanked' && (!runner || runsOn(entry, runner)))
  return fit.find((entry) => !isPrerelease(entry.version)) ?? fit[0]
}

export function runsOn({ minRunner, maxRunner }: Runners, runner: Version): boolean {
  const precedence = precedenceOf(runner)
  return (minRunner === null || minRunner <= precedence) && (maxRunner === null || precedence <= maxRunner)
}

function tooOld(packId: PackId, version: Version, runner: Version, all: ListedVersion[]): Failure {
  const newest = newestFor(all, runner)?.version
  return new Failure('RUNNER_TOO_OLD', {
    detail:
      `${packId} ${version} does not run on runner ${runner}. ` +
      (newest ? `The newest version that does is ${newest}` : 'No version of it does'),
    about: { runner, ...(newest ? { newestCompatible: newest } : {}) },
  })
}

function unknown(packId: PackId, selector: string, all: ListedVersion[]): Failure {
  const near = nearest(selector, all)
  return new Failure('VERSION_UNKNOWN', {
    detail: `${packId} has no version that ${JSON.stringify(selector.slice(0, 200))} names. The nearest: ${near.join(', ')}`,
    about: { nearest: near },
  })
}

/** The next lower and the next higher version of the one that a selector speaks of, else the newest. */
function nearest(selector: string, all: ListedVersion[]): Version[] {
  const numbers = /\d+(?:\.\d+){0,2}/.exec(selector)?.[0].split('.') ?? []
  const about = parseVersion(selector) ?? parseVersion([0, 1, 2].map((i) => numbers[i] ?? '0').join('.'))
  const versions = all.map((entry) => entry.version)
  if (numbers.length === 0 || !about) return versions.slice(0, 3)
  const lower = versions.find((version) => compareVersions(version, about) < 0)
  const higher = versions.findLast((version) => compareVersions(version, about) >= 0)
  return [lower, higher].filter((version) => version !== undefined)
}
