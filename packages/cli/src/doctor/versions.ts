import { type Check, ok, warn } from './check.ts'

/** Compares the versions of the two programs: one minor version apart is served (docs/protocol.md, Versions), more
 *  may work. */
export function compareVersions(own: string, edge: string): Check {
  if (own === edge) return ok('version', `postern and the edge are ${own}`)
  const both = `postern is ${own}, the edge is ${edge}`
  const [ownMajor, ownMinor] = parseVersion(own)
  const [edgeMajor, edgeMinor] = parseVersion(edge)
  const apart = edgeMajor - ownMajor || edgeMinor - ownMinor
  if (apart === 0) return ok('version', both)
  const isServed = edgeMajor === ownMajor && Math.abs(apart) === 1
  return warn(
    'version',
    isServed
      ? `${both}: they do together what both can`
      : `${both}: more than one minor version apart, nobody promises that they understand each other`,
    apart > 0 ? `install postern ${edge} on this machine` : `let the edge's operator install ${own} there`,
  )
}

function parseVersion(version: string): [major: number, minor: number] {
  const [, major, minor] = /^(\d+)\.(\d+)\./.exec(version) ?? []
  return [Number(major ?? -1), Number(minor ?? -1)]
}
