import type { ObjectKey } from '../blobs/keys.ts'
import { checkClosure } from '../bundles/closure.ts'
import { decideVerification } from '../bundles/signature.ts'
import { signatureOf } from '../bundles/verify.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import type { Digest } from '../oci/digest.ts'
import type { PackId } from '../packs/pack.ts'
import type { openBase } from './import-base.ts'
import { namedByBundle, namedByLayout } from './import-layout.ts'
import { type Plan, type Problem, planImport } from './import-plan.ts'
import type { Received } from './import-receive.ts'
import { openTexts } from './import-texts.ts'
import { type KnownKeys, knownKeys } from './keys.ts'

export type Verified = {
  survey: Received['survey']
  signature: ReturnType<typeof signatureOf>
  plan: Plan
  problems: Problem[]
}

type Options = {
  /** Where the content is that the registry does not hold yet. */
  keys: ReadonlyMap<Digest, ObjectKey>
  base: ReturnType<typeof openBase>
  /** The pack of a layout that does not say which it is. */
  pack: PackId | undefined
}

/** What became of the signature, and whether the file is refused for it. */
export function judgeSignature(
  deps: Deps,
  survey: Received['survey'],
  { trusted, distrusted }: KnownKeys,
): Pick<Verified, 'signature' | 'problems'> {
  const signature = signatureOf(survey, trusted, new Date(), distrusted)
  const hadKeys = trusted.length + distrusted.length > 0
  const refused = decideVerification(deps.config.bundleVerify, hadKeys, signature)
  return { signature, problems: refused ? [{ key: refused.key, message: String(refused.detail) }] : [] }
}

/** Everything that is wrong with a file itself, and what it means. */
export async function verifyWhole(
  deps: Deps,
  { survey, payloads, texts }: Received,
  { keys, base, pack }: Options,
): Promise<Verified> {
  const { contents, blobs, manifests, lock, leftOut } = survey
  const { signature, problems: unsigned } = judgeSignature(deps, survey, await knownKeys(deps))
  const held = await base.manifests(leftOut)
  // Of what is left out, only what the importer may read: a digest in a manifest is no right to what it stands for.
  const sizes = new Map([...leftOut.map(({ digest, size }) => [digest, size] as const), ...blobs])
  const source = {
    manifestBytes: (digest: Digest) => payloads.get(digest) ?? held.get(digest),
    textOf: openTexts(deps, texts, sizes, keys),
  }
  const named = contents.isBundle ? namedByBundle(contents) : await namedByLayout(survey, source, pack)
  const hanging = named.referrers.flatMap(({ digest, subject }) => {
    const described = manifests.get(digest)
    const isListed = contents.isBundle || !described || described instanceof Failure
    const descriptor = { mediaType: isListed ? '' : described.mediaType, digest, size: blobs.get(digest) ?? 0 }
    return isListed ? [] : [{ kind: 'referrer' as const, descriptor, subject }]
  })
  const { violations } = checkClosure({
    ...{ contents: { ...contents, entries: [...contents.entries, ...hanging] }, lock: lock?.lock, leftOut },
    sizeOf: (digest) => blobs.get(digest),
    manifestOf: (digest) => manifests.get(digest),
  })
  const plan = await planImport({ ...named, ...source })
  // There may be more than a call takes arguments.
  const problems = [
    ...unsigned,
    ...violations.map((message): Problem => ({ key: 'BUNDLE_INVALID', message })),
    ...named.problems,
    ...plan.problems,
  ]
  if (plan.places.size === 0 && problems.length === 0)
    problems.push({ key: 'IMPORT_REFUSED', message: 'there is no pack in it' })
  return { survey, signature, plan, problems }
}
