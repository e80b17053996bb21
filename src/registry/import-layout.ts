import type { Contents, Entry } from '../bundles/contents.ts'
import type { Survey } from '../bundles/survey.ts'
import { Failure } from '../errors.ts'
import { isObject } from '../oci/descriptor.ts'
import type { Digest } from '../oci/digest.ts'
import { parseTag, type Tag } from '../oci/reference.ts'
import { configOf, identityOf } from '../packs/artifact.ts'
import { attachedTo } from '../packs/channel.ts'
import { type PackId, parsePackId, typeOfArtifact } from '../packs/pack.ts'
import { parseVersion, tagOf, type Version, versionOfTag } from '../packs/version.ts'
import { openEffort } from './import-effort.ts'
import { type ListedReferrer, type Problem, type Root, rootOf, type Source } from './import-plan.ts'

/** What an index names, as packs. `leftOver`: what is no pack and hangs on nothing, and why. */
export type Named = { roots: Root[]; referrers: ListedReferrer[]; problems: Problem[] }

/** The packs that a bundle of ours names: its index says which they are. */
export function namedByBundle({ entries }: Contents): Named {
  const roots = entries.flatMap((entry): Root[] => {
    if (entry.kind === 'pack') return [rootOf(entry.packId, entry.version, entry.descriptor)]
    if (entry.kind === 'channel') return [{ packId: entry.packId, tag: entry.channel, descriptor: entry.descriptor }]
    if (entry.kind === 'attachment') return [{ packId: entry.packId, tag: entry.tag, descriptor: entry.descriptor }]
    return []
  })
  const referrers = entries.flatMap((entry): ListedReferrer[] =>
    entry.kind === 'referrer' ? [{ digest: entry.descriptor.digest, subject: entry.subject }] : [],
  )
  return { roots, referrers, problems: [] }
}

/**
 * The packs in a layout that another tool made. Which one a manifest is, its document says (the config, or the annotation
 * of a bundle); where it has none, the name it has in the layout, or `repository`. What has a subject hangs on that,
 * whether it is listed or not: some tools list only what has a tag.
 */
export async function namedByLayout(
  { contents, manifests }: Pick<Survey, 'contents' | 'manifests'>,
  source: Pick<Source, 'manifestBytes' | 'textOf'>,
  repository: PackId | undefined,
): Promise<Named> {
  const named: Named = { roots: [], referrers: [], problems: [] }
  const seen = new Set<string>()
  const effort = openEffort()
  for (const [digest, described] of manifests)
    if (!(described instanceof Failure) && described.subject)
      named.referrers.push({ digest, subject: described.subject })
  const hanging = new Set(named.referrers.map(({ digest }) => digest))
  const images = contents.entries.filter((entry) => entry.kind === 'image')
  for (const entry of images) {
    if (hanging.has(entry.descriptor.digest) || subjectOf(entry)) continue
    await effort(source.manifestBytes(entry.descriptor.digest)?.length ?? 0)
    const roots = await rootsOf(entry, source, repository)
    if ('key' in roots) named.problems.push(roots)
    else named.roots.push(...roots.filter((root) => isNew(seen, root)))
  }
  const homes = new Map<Digest, Set<PackId>>()
  for (const { packId, descriptor } of named.roots)
    homes.set(descriptor.digest, (homes.get(descriptor.digest) ?? new Set()).add(packId))
  for (const entry of images) for (const root of attachments(entry, homes)) named.roots.push(root)
  return named
}

/** What an image belongs to by its name: a tag of cosign's, or of the referrers fallback. */
function subjectOf({ name }: Image): Digest | undefined {
  const { tag } = nameIn(name)
  return tag && attachedTo(tag)
}

/**
 * Goes where its subject is, under its own name. A list of referrers (the fallback) is not needed: those that it lists
 * say themselves what they hang on. Nor is what belongs to something else than a pack of the layout.
 */
function attachments(entry: Image, homes: ReadonlyMap<Digest, ReadonlySet<PackId>>): Root[] {
  const { tag } = nameIn(entry.name)
  const subject = subjectOf(entry)
  if (!tag || !subject || !tag.includes('.')) return []
  return [...(homes.get(subject) ?? [])].map((packId) => ({ packId, tag, descriptor: entry.descriptor }))
}

function isNew(seen: Set<string>, { packId, tag, descriptor }: Root): boolean {
  const name = `${packId} ${tag} ${descriptor.digest}`
  if (seen.has(name)) return false
  seen.add(name)
  return true
}

type Image = Extract<Entry, { kind: 'image' }>

/** A version, under its own tag and under the one that the layout has for it. */
async function rootsOf(
  { descriptor, name }: Image,
  { manifestBytes, textOf }: Pick<Source, 'manifestBytes' | 'textOf'>,
  repository: PackId | undefined,
): Promise<Root[] | Problem> {
  const { digest } = descriptor
  const shown = name === undefined ? digest : `${JSON.stringify(name)} (${digest})`
  const bytes = manifestBytes(digest)
  const manifest: unknown = bytes ? JSON.parse(bytes.toString()) : undefined
  if (!isObject(manifest)) return { key: 'BUNDLE_INVALID', message: `${shown} is not a manifest` }
  if (!typeOfArtifact(typeof manifest.artifactType === 'string' ? manifest.artifactType : undefined))
    return {
      key: 'IMPORT_REFUSED',
      message: `${shown} is no pack: its artifactType is ${JSON.stringify(manifest.artifactType) ?? 'missing'}. Packs are what is imported here; push anything else with oras, skopeo or crane`,
    }
  const written = nameIn(name)
  const config = configOf(manifest)
  const own = identityOf(manifest, config && (await textOf(config.digest)))
  const packId = own?.packId ?? repository ?? written.packId
  const named = written.tag && tagWithout(packId, written.tag)
  const version = own?.version ?? versionIn(manifest) ?? (named && versionOfTag(named))
  if (!packId || !version)
    return {
      key: 'IMPORT_REFUSED',
      message: packId
        ? `${shown} does not say which version of ${packId} it is: neither its config, nor an annotation, nor its name does`
        : `${shown} does not say which pack it is; say it with ?repository=packs/<id>`,
    }
  const tag = named !== undefined && named !== tagOf(version) ? [named] : []
  return [rootOf(packId, version, descriptor), ...tag.map((other) => ({ packId, tag: other, descriptor }))]
}

/** A tag, or a reference with a repository: `localhost:5000/packs/net:1.0.0`, as some tools write it. */
function nameIn(name: string | undefined): { packId: PackId | undefined; tag: Tag | undefined } {
  const [, repository, written] = /^(?:(.*)[:])?([^:/@]+)$/.exec(name ?? '') ?? []
  const id = /(?:^|\/)packs\/([^/]+)$/.exec(repository ?? '')?.[1]
  return { packId: id === undefined ? undefined : parsePackId(id), tag: parseTag(written ?? '') }
}

/** The tag in `<id>--<tag>`, which is how this registry names the packs in the file of a bundle; else all of it. */
function tagWithout(packId: PackId | undefined, tag: Tag): Tag | undefined {
  const own = `${packId}--`
  return packId !== undefined && tag.startsWith(own) ? parseTag(tag.slice(own.length)) : tag
}

function versionIn({ annotations }: Record<string, unknown>): Version | undefined {
  const written = isObject(annotations) ? annotations['org.opencontainers.image.version'] : undefined
  return typeof written === 'string' ? parseVersion(written) : undefined
}

/** The repository that somebody names for a layout without names. Throws QUERY_INVALID unless it is one of a pack. */
export function packOfRepository(text: string): PackId {
  const packId = text.startsWith('packs/') ? parsePackId(text.slice('packs/'.length)) : undefined
  if (packId) return packId
  throw new Failure('QUERY_INVALID', {
    detail: `repository=${JSON.stringify(text.slice(0, 200))} is not the repository of a pack, such as packs/net-policy`,
  })
}
