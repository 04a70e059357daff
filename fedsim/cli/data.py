"""The commands of `fedsim data`: look at, import and make data."""

from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.common import OfData, WorkloadFile, a_number, out
from fedsim.core.terminal import print_whole

data = typer.Typer(no_args_is_help=True, help="Inspect, import and generate data.")


@data.command("inspect")
def data_inspect(
    path: Annotated[Path, typer.Argument(help="File or folder with images.", metavar="PATH")],
    picture: Annotated[
        Path | None, typer.Option(help="Where to write a picture of a few slices; default inspect-NAME.png.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every volume, in the table and in the picture.")
    ] = False,
) -> None:
    """Describe what a file or folder holds, and write a picture of a few slices."""
    from fedsim.report.inspect import inspect_path

    picture = picture or Path(f"inspect-{path.resolve().name}.png")
    table, notes = inspect_path(path, picture, everything)
    print_whole(table, out)
    for note in notes:
        out.print(note, soft_wrap=True, highlight=False, markup=False)
    out.print(f"picture: {picture}", soft_wrap=True, highlight=False)


@data.command("import")
def data_import(workload: WorkloadFile, overrides: OfData = None) -> None:
    """Import a workload's sites into the cache and show its splits and measured accelerations."""
    from fedsim.cli.progress import bars_of
    from fedsim.cli.tables import manifest_table
    from fedsim.engine.federation import assemble
    from fedsim.workload.reading import load_workload

    loaded = load_workload(workload, overrides or [])
    sites = len(loaded.listed_sites) + len(loaded.federation.unseen_sites())
    with bars_of(out, "sites", "shards") as step:
        federation = assemble(loaded, lambda site: step("sites", site, sites))
        clients = () if federation.by_rule else federation.clients
        members = [member for client in (*clients, *federation.unseen) for member in client.data.members]
        shards = {member.shard: member for member in members}  # clients of a site share one
        for member in shards.values():
            with member.open():  # phantoms are generated on first use
                step("shards", member.site, len(shards))
    print_whole(manifest_table(federation.manifest), out)
    for note in federation.notes:
        out.print(note, soft_wrap=True, highlight=False, markup=False)
    out.print(f"cache: {loaded.federation.cache}", soft_wrap=True, highlight=False)


@data.command("cache")
def data_cache(
    folder: Annotated[
        Path | None, typer.Argument(help="Cache of shards; default the user's.", metavar="FOLDER")
    ] = None,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Delete shards not used for --older-than days."),
    ] = False,
    older_than: Annotated[
        float, typer.Option(help="Days without use, for --clean.", metavar="DAYS", min=0, callback=a_number)
    ] = 30,
) -> None:
    """List the imported shards in a cache, or delete those not used recently."""
    from fedsim.cli.tables import cache_table
    from fedsim.data import cache
    from fedsim.workload.sites import Federation

    path = folder or Federation.model_fields["cache"].get_default(call_default_factory=True)
    if clean:
        deleted = cache.clean(path, older_than)
        print_whole(cache_table(deleted, f"deleted from {path}"), out)
    else:
        print_whole(cache_table(cache.entries(path), str(path)), out)


@data.command("phantom")
def data_phantom(
    folder: Annotated[Path, typer.Argument(help="New folder for the files.", metavar="DIR")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Key of a phantom source, e.g. contrast=t2.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the anatomies.")] = 0,
) -> None:
    """Write phantom volumes in fastMRI's HDF5 layout."""
    from fedsim.data.formats.phantom import PhantomSource
    from fedsim.data.phantom_files import write_phantoms
    from fedsim.workload.reading import read_section

    source = read_section(PhantomSource, overrides or []).resolve(seed, "phantom")
    for path in write_phantoms(folder, source):
        out.print(str(path), soft_wrap=True, highlight=False)
