"""croissant.json: a mix in Croissant 1.1, for catalogues and for whoever loads data by it.

Provenance stands at every level that the format has: of the data set (from which sources, by which activity), of the
columns that tell of it, and of each record, whose text is attributed to its generator and derived from its source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from pipeline.card_facts import has_synthetic, languages, mix_name, share_of
from pipeline.licenses import declared
from pipeline.manifest import MANIFEST, dump_manifest
from transforms.kernels.schemas import Provenance, mix_schema

__all__ = ["croissant"]

_COLUMNS = {
    "id": "Hex of the first 128 bits of the sha256 of the text's UTF-8 bytes.",
    "text": "The document, exactly as it was read.",
    "source": "Name of the source it came from.",
    "provenance": "human_verified, human, ai_assisted, synthetic, disputed or unknown.",
    "generator": "The model that wrote it, where known.",
    "evidence": "What speaks for and against its origin.",
    "n_tokens": "Tokens of the text, by the counter that the manifest names.",
    "n_bytes": "Bytes of the text in UTF-8.",
    "represents": "Documents it stands for after deduplication, itself included.",
    "copy": "0 for the first copy of a document, 1 for the second, and so on.",
    "language": "Language as the source declares it.",
    "license": "License as the source declares it.",
    "doc_id": "Id that the source gave it.",
    "shard": "Input shard it was read from.",
    "row": "Row of that shard.",
    "part": "Part of that row, where one row holds several documents.",
}
_SEMANTICS = {"id": "sc:identifier", "text": "sc:text", "language": "sc:inLanguage", "license": "sc:license"}

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "annotation": "cr:annotation",
    "anchormix": "urn:x-anchormix:terms:",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(manifest: Mapping[str, Any], kept: list[str]) -> dict[str, Any]:
    """Croissant 1.1 metadata: every shard by its sha256, one record set with the columns of the mix."""
    totals = manifest["totals"]
    software = f"anchormix {manifest['code_version']}"
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": mix_name(manifest),
        "description": (
            f"A training mix of {totals['documents']} documents and {totals['tokens']} tokens, deduplicated and "
            f"tagged with provenance. Of its {manifest['measure']}, {share_of(manifest, 'human_verified')} are "
            f"verified human text and {share_of(manifest, 'synthetic')} synthetic."
        ),
        "version": f"1.0.0+{manifest['logical_digest'][:12]}",
        "citeAs": f"{mix_name(manifest)}, a training mix with the logical digest {manifest['logical_digest']}",
        "license": list(declared(manifest)) or ["unknown"],
        "keywords": ["text", "provenance", *(["synthetic"] if has_synthetic(manifest) else [])],
        "isLiveDataset": False,
        **{f"anchormix:share_{label}": share_of(manifest, label) for label in _LABELS},
        **_provenance(manifest, software),
        **_responsible(manifest, software),
        "distribution": [*_files(manifest), _SHARDS],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "documents",
                "name": "documents",
                "description": "One record per row of the mix.",
                "field": [_field(column, software) for column in mix_schema(tuple(kept))],
            }
        ],
    }
    if codes := languages(manifest):
        described["inLanguage"] = codes
    if manifest["as_of"]:
        described["datePublished"] = manifest["as_of"]
    return described


_LABELS = tuple(provenance.label for provenance in Provenance)


def _provenance(manifest: Mapping[str, Any], software: str) -> dict[str, Any]:
    """Which sources, and which earlier mix, this one was made from, by what."""
    entities: list[dict[str, Any]] = [
        {
            "@type": "prov:Entity",
            "@id": f"urn:x-anchormix:source:{quote(name, safe='')}",
            "prov:label": f"{name}: {account['documents_in']} documents read, {account['documents_out']} in the mix",
        }
        for name, account in sorted(manifest["sources"].items())
    ]
    if parent := manifest["parent"]:
        name = str(parent["logical_digest"])
        entities.append(
            {
                "@type": "prov:Entity",
                "@id": f"urn:x-anchormix:mix:{name}",
                "prov:label": "The mix that this one succeeds",
            }
        )
    return {
        "prov:wasDerivedFrom": entities,
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": f"Deduplication, tagging and mixing under the plan {manifest['plan']}",
            "prov:wasAssociatedWith": {"@type": "prov:SoftwareAgent", "prov:label": software},
        },
    }


def _responsible(manifest: Mapping[str, Any], software: str) -> dict[str, Any]:
    """Fields of the Responsible AI vocabulary; what nobody here can know is said to be unknown, not left out."""
    methods = sorted({str(method) for method in manifest["methods"].values()})
    custody = f" Human authorship is vouched for by {', '.join(methods)}." if methods else ""
    return {
        "rai:dataCollection": (
            f"Documents of the sources {', '.join(sorted(manifest['sources']))}; every one of them is accounted for in "
            f"{MANIFEST}.{custody}"
        ),
        "rai:dataCollectionType": ["Secondary Data Analysis"],
        "rai:dataPreprocessingProtocol": [
            "Exact and near duplicates were removed; each removal names the kept document that justifies it.",
            "Text is never edited.",
        ],
        "rai:dataManipulationProtocol": (
            "Whole documents were chosen under floors and caps by provenance, and ordered by a seeded hash; the rules "
            f"and what they came to stand in {MANIFEST}."
        ),
        "rai:dataAnnotationProtocol": (
            "Provenance tags follow from evidence that is kept in each row: signed custody, declarations, labels, "
            "disclosures, traces of chat tools, likeness to known text, and detectors where the maker names some."
        ),
        "rai:machineAnnotationTools": [software],
        "rai:dataLimitations": (
            "Verification is about custody, not about how a text reads: it says who vouches for human authorship. "
            "Synthetic text that nobody declared may be among what is tagged human or unknown."
        ),
        "rai:dataBiases": (
            "Not examined, but for diversity, which diversity.parquet holds by source, language, provenance and "
            "generator. Languages and sources weigh what the rules and their supply let them weigh."
        ),
        "rai:dataUseCases": "Training of language models.",
        "rai:personalSensitiveInformation": "Not examined: text is as the sources hold it.",
        "rai:dataReleaseMaintenancePlan": (
            "A published mix never changes. What has to go is excluded from a later mix, which names this one as its "
            "parent."
        ),
    }


_SHARDS = {
    "@type": "cr:FileSet",
    "@id": "shards",
    "name": "shards",
    "description": "The rows of the mix.",
    "encodingFormat": "application/x-parquet",
    "includes": "data/*.parquet",
}


def _files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    digest = hashlib.sha256(dump_manifest(manifest)).hexdigest()
    listed = [(MANIFEST, "application/json", digest, len(dump_manifest(manifest)))]
    listed += [
        (shard["path"], "application/x-parquet", shard["sha256"], shard["file_bytes"]) for shard in manifest["shards"]
    ]
    return [
        {
            "@type": "cr:FileObject",
            "@id": path,
            "name": path,
            "contentUrl": path,
            "contentSize": f"{size} B",
            "encodingFormat": kind,
            "sha256": sha256,
        }
        for path, kind, sha256, size in listed
    ]


def _field(column: pa.Field, software: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"documents/{column.name}",
        "name": column.name,
        "description": _COLUMNS.get(column.name, "Kept from the source as it was."),
    }
    if pa.types.is_list(column.type):
        struct = column.type.value_type
        parts = [_part(column.name, struct.field(place).name) for place in range(struct.num_fields)]
        return {**described, "repeated": True, "subField": parts}
    kind = "sc:Integer" if pa.types.is_integer(column.type) else "sc:Text"
    semantic = _SEMANTICS.get(column.name)
    source = {"fileSet": {"@id": "shards"}, "extract": {"column": column.name}}
    described |= {"dataType": [kind, semantic] if semantic else kind, "source": source}
    if column.name == "text":
        described["annotation"] = list(_annotations())
    if column.name == "provenance":
        described["prov:wasAttributedTo"] = {"@type": "prov:SoftwareAgent", "prov:label": software}
    return described


def _annotations() -> Iterator[dict[str, Any]]:
    """What each record's text is attributed to and derived from, by the columns that say so."""
    told = (
        ("generator", "prov:wasAttributedTo", "prov:Agent", "The model that wrote the text, where one did."),
        ("source", "prov:wasDerivedFrom", "prov:Entity", "The source that the text was read from."),
    )
    for column, relation, kind, description in told:
        yield {
            "@type": "cr:Field",
            "@id": f"documents/text/{column}",
            "name": f"text/{column}",
            "description": description,
            "dataType": ["sc:Text", kind],
            "equivalentProperty": relation,
            "source": {"fileSet": {"@id": "shards"}, "extract": {"column": column}},
        }


def _part(column: str, part: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"documents/{column}/{part}",
        "name": part,
        "dataType": "sc:Text",
        "source": {
            "fileSet": {"@id": "shards"},
            "extract": {"column": column},
            "transform": {"jsonPath": f"$[*].{part}"},
        },
    }
