"""Seeded sample shards whose duplicates, artefacts and origins are known, and the `init` that writes them.

Every word comes from the tables below, so nothing is downloaded and nothing is quoted. Sentences are templates filled
from frequency-ranked word lists. Human authors use whole lists and coin compounds and names, which gives their text
its long tail of rare words; models use the head of each list and open sentences the same few ways.
"""

# Letters of other scripts are the point of the tables.
# ruff: noqa: RUF001

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from pipeline.errors import UsageError

__all__ = ["LANGUAGES", "Copy", "Draws", "Language", "SampleTruth", "init", "write_rows", "write_samples"]

T = TypeVar("T")
Row = dict[str, Any]

TEMPLATE = Path(__file__).with_name("quickstart.yaml")

# What the template says about the press source; key, manifest and config have to agree.
PRESS_KEY = "press-desk"
PRESS_METHOD = "licensed_source"
PRESS_MANIFEST = "custody/press.dsse.json"

# Share of all documents. Press stays below what the other sources keep after dedup, so that a floor of one half binds.
SHARES = {"press": 0.34, "archive": 0.16, "web": 0.24, "forum": 0.1, "rephrased": 0.1, "stories": 0.06}
STORY_GENERATORS = ("llama-3-8b", "gemma-2-9b")
FEWEST_DOCUMENTS = 50  # below it a planted kind of document could be missing


class Draws:
    """Seeded choices built on `random.random` alone, the one method whose values Python promises to keep."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def between(self, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        return items[int(self._random.random() * len(items))]

    def zipf(self, items: Sequence[T]) -> T:
        """The item at rank r with a weight of 1 / (r + 2)."""
        weights = _zipf_weights(len(items))
        return items[bisect(weights, self._random.random() * weights[-1])]


@cache
def _zipf_weights(count: int) -> tuple[float, ...]:
    return tuple(accumulate(1 / (rank + 2) for rank in range(count)))


@dataclass(frozen=True)
class Language:
    """Word tables of one language; `{slot}` in a template takes one word of that slot."""

    code: str
    templates: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]  # most frequent first
    openers: tuple[str, ...]  # how models like to begin
    compounds: tuple[tuple[str, ...], tuple[str, ...]]  # rare nouns: a first and a second part
    syllables: tuple[tuple[str, ...], tuple[str, ...]]  # names: one or two of the first, one of the second
    stop: str = "."
    space: str = " "

    def coin_noun(self, draws: Draws) -> str:
        return draws.pick(self.compounds[0]) + draws.pick(self.compounds[1])

    def coin_name(self, draws: Draws) -> str:
        stems, endings = self.syllables
        name = "".join(draws.pick(stems) for _ in range(draws.between(1, 2))) + draws.pick(endings)
        return name[:1].upper() + name[1:]


def _words(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


ENGLISH = Language(
    code="en",
    templates=(
        "the {adj} {noun} {verb} the {noun} {when}.",
        "{when}, the {noun} {verb} one {adj} {noun}, and the {noun} {verb} it.",
        "{name} {verb} the {noun} because the {adj} {noun} had {verb} the {noun}.",
        "nobody in {name} {verb} the {noun} until the {noun} was {verb}.",
        "about {number} people {verb} the {noun} of {name} {when}.",
        "it was the {noun}, not the {adj} {noun}, that {verb} the {noun}.",
        "although the {noun} was {adj}, {name} {verb} every {noun} {when}.",
        "the {noun} and the {noun} {verb} the {adj} {noun} of the {noun}.",
        "when the {noun} {verb} the {adj} {noun}, the {noun} stayed {adj}.",
        "her {adj} {noun} {verb} what the {noun} {verb} {number} years ago.",
        "there is one {adj} {noun} beside the {noun}, and {name} {verb} it {when}.",
        "some of them {verb} the {noun}; others {verb} only the {noun} from {name}.",
    ),
    slots={
        "when": ("after the war", "in early spring", "that evening", "before the flood", "for years", "on Sunday"),
        "noun": _words(
            "town river council letter bridge house market school harbour teacher road village garden winter",
            "committee engine library harvest ferry orchard museum lantern railway captain kitchen valley survey",
            "mountain newspaper clock carpenter choir archive factory journey meadow parliament notebook surgeon",
            "painter storm cathedral fisherman baker island theatre window tunnel forest violin courthouse chemist",
            "lighthouse compass quarry tavern reservoir beekeeper mill workshop cellar greenhouse monument ledger",
            "apprentice glacier orchestra telescope almanac granary aqueduct vineyard foundry chapel embankment",
        ),
        "verb": _words(
            "described repaired visited saw changed followed opened carried closed remembered measured crossed",
            "painted questioned studied praised watched counted reached moved abandoned restored ignored sold",
            "inherited surveyed defended mapped rebuilt rented borrowed sketched translated concealed salvaged",
            "overlooked catalogued outlasted",
        ),
        "adj": _words(
            "old small new long quiet northern public narrow wooden bright forgotten local early heavy broken",
            "careful crowded distant empty famous frozen hidden modest painted patient private rusty salty",
            "shallow steep stubborn sunlit tidal uneven weathered windless",
        ),
    },
    openers=(
        "It is important to note that",
        "In today's fast-changing world,",
        "Overall, it is clear that",
        "In conclusion,",
    ),
    compounds=(
        _words(
            "river harbour mill storm copper sheep timber glass lamp salt candle wool barley chalk slate marsh",
            "tide peat honey cinder willow heron ember thistle quarry rope anchor bramble kelp flint",
        ),
        _words(
            "keeper wright yard monger side works stone gate maker bank field master house path ward reeve fold",
            "hoist kiln loft",
        ),
    ),
    syllables=(
        _words("hal bren mor tolle wex pen ash thorn gar lin car dun elm fair hart kel mar nor os rad sel win"),
        _words("by ford ton ley wick ham worth dale mere combe stow"),
    ),
)

# Plurals throughout: articles and endings then agree whatever the nouns are.
GERMAN = Language(
    code="de",
    templates=(
        "die {adj} {noun} {verb} die {noun} {when}.",
        "{when} {verb} die {noun} alle {adj} {noun}, und die {noun} blieben {state}.",
        "weil die {noun} {state} waren, {verb} sie die {adj} {noun} von {name}.",
        "in {name} {verb} rund {number} Menschen die {noun}.",
        "nicht die {adj} {noun}, sondern die {noun} {verb} die {noun}.",
        "die {noun} und die {noun} {verb} {when} die {adj} {noun}.",
        "obwohl die {noun} {state} waren, {verb} die Leute aus {name} alle {noun}.",
        "dort {verb} die {adj} {noun} noch immer die {noun} der Stadt {name}.",
        "vor {number} Jahren {verb} die {noun} kaum die {adj} {noun}.",
        "manche {verb} die {noun}, andere {verb} nur die {adj} {noun}.",
    ),
    slots={
        "when": ("nach dem Krieg", "im Frühjahr", "am Abend", "vor der Flut", "seit Jahren", "am Sonntag"),
        "noun": _words(
            "Menschen Straßen Häuser Städte Briefe Brücken Märkte Schulen Flüsse Gärten Lehrer Dörfer Zeitungen",
            "Winter Wälder Fenster Bücher Schiffe Bauern Berge Uhren Kirchen Fabriken Reisen Wiesen Hefte Ärzte",
            "Maler Stürme Fischer Bäcker Inseln Theater Tunnel Geigen Leuchttürme Kompasse Steinbrüche Gasthöfe",
            "Stauseen Imker Mühlen Werkstätten Keller Gewächshäuser Denkmäler Lehrlinge Gletscher Orchester",
            "Fernrohre Kalender Speicher Weinberge Gießereien Kapellen Deiche",
        ),
        "verb": _words(
            "sahen fanden beschrieben besuchten änderten trugen öffneten schlossen kannten maßen überquerten malten",
            "befragten lobten zählten erreichten verließen erneuerten übersahen verkauften erbten verteidigten",
            "vermieteten zeichneten übersetzten verbargen bargen",
        ),
        "adj": _words(
            "alten kleinen neuen langen stillen nördlichen schmalen hölzernen hellen vergessenen frühen schweren",
            "vollen fernen leeren berühmten verborgenen bescheidenen geduldigen rostigen salzigen flachen steilen",
            "sonnigen verwitterten windstillen",
        ),
        "state": _words("alt neu ruhig teuer beliebt verlassen überfüllt beschädigt unbekannt baufällig"),
    },
    openers=(
        "Es ist wichtig zu beachten:",
        "In der heutigen Welt gilt:",
        "Zusammenfassend gilt:",
    ),
    compounds=(
        _words(
            "Hafen Mühlen Sturm Kupfer Schaf Holz Glas Lampen Salz Kerzen Woll Gersten Kreide Schiefer Moor Torf",
            "Honig Weiden Reiher Distel Anker Tang Feuer Nebel",
        ),
        _words(
            "brücken höfe wege steine tore meister bänke felder häuser pfade türme speicher gruben märkte wagen",
            "lager boote kammern",
        ),
    ),
    syllables=(
        _words("ober nieder alten neuen wald eichen linden hirsch stein birken grün rot kirch muster lauter eber"),
        _words("bach dorf heim hausen feld berg au furt bruck stedt"),
    ),
)

# Inanimate plurals throughout: subject and object then share one form.
RUSSIAN = Language(
    code="ru",
    templates=(
        "{adj} {noun} {verb} {noun} {when}.",
        "{when} {adj} {noun} {verb} {noun}, а {noun} остались прежними.",
        "{name} помнил, как {adj} {noun} {verb} {noun}.",
        "около {number} человек видели, что {noun} {verb} {adj} {noun}.",
        "не {noun}, а {adj} {noun} {verb} {noun} города {name}.",
        "хотя {noun} были далеко, {adj} {noun} {verb} все {noun}.",
        "{noun} и {noun} {when} {verb} {adj} {noun}.",
        "там, где {noun} {verb} {noun}, стояли {adj} {noun}.",
        "{number} лет назад {noun} ещё {verb} {adj} {noun}.",
        "{name} писал: {noun} {verb} {noun}, и это было заметно {when}.",
    ),
    slots={
        "when": ("после войны", "ранней весной", "вечером", "до наводнения", "много лет", "в воскресенье"),
        "noun": _words(
            "дома города письма мосты дороги рынки школы реки сады деревни газеты леса окна книги корабли горы",
            "часы церкви заводы поля тетради острова театры тоннели скрипки маяки мельницы мастерские подвалы",
            "теплицы памятники ледники оркестры телескопы календари амбары виноградники часовни плотины архивы",
            "фонари причалы колодцы чертежи",
        ),
        "verb": _words(
            "меняли видели закрывали открывали украшали описывали соединяли окружали скрывали хранили напоминали",
            "пересекали освещали занимали заменяли защищали продолжали разрушали отражали заслоняли",
        ),
        "adj": _words(
            "старые новые длинные тихие северные узкие деревянные светлые забытые ранние тяжёлые далёкие пустые",
            "известные скрытые скромные ржавые солёные мелкие крутые солнечные ветхие речные каменные",
        ),
    },
    openers=("Важно отметить, что", "В современном мире", "Таким образом,"),
    compounds=(
        _words("лесо водо паро свето камне зерно снего льно медо рыбо торфо стекло соле дымо звездо"),
        _words("склады заводы пути станции посты мосты дворы архивы хранилища курсы мерки ходы"),
    ),
    syllables=(
        _words("бор ива сер вол мир кал зар тол нов бел руд кор лес яр"),
        _words("ский ов ин енко цев ников ухин"),
    ),
)

CHINESE = Language(
    code="zh",
    templates=(
        "{when}{adj}的{noun}{verb}了{noun}。",
        "{name}{verb}了{adj}的{noun}，但是{noun}没有变化。",
        "大约{number}个人{verb}了{name}的{noun}。",
        "因为{noun}很{adj}，所以{noun}{verb}了{noun}。",
        "虽然{adj}的{noun}不见了，{name}仍然{verb}着{noun}。",
        "{noun}和{noun}{when}一起{verb}了{adj}的{noun}。",
        "{number}年以前，{noun}还没有{verb}{adj}的{noun}。",
        "不是{noun}，而是{adj}的{noun}{verb}了{noun}。",
    ),
    slots={
        "when": ("战争以后", "初春", "那天晚上", "洪水以前", "多年来", "星期天"),
        "noun": _words(
            "城市 房子 老师 学校 市场 河流 桥梁 信件 村庄 花园 报纸 森林 窗户 书本 船只 山谷 钟表",
            "教堂 工厂 旅行 草地 医生 画家 风暴 渔民 岛屿 剧院 隧道 灯塔 采石场 水库 蜂农 磨坊",
            "作坊 地窖 温室 纪念碑 学徒 冰川 乐团 望远镜 粮仓 葡萄园 堤坝",
        ),
        "verb": _words(
            "看见 改变 描写 修理 参观 打开 关闭 记住 测量 穿过 研究 称赞 观察",
            "到达 离开 恢复 忽略 继承 保护 翻译 隐藏 抢救",
        ),
        "adj": _words("古老 安静 狭窄 明亮 遥远 著名 沉重 拥挤 空旷 谦虚 耐心 生锈 陡峭 破旧 朴素 潮湿"),
    },
    openers=("值得注意的是，", "总的来说，", "在当今世界，"),
    compounds=(
        _words("盐 铜 木 石 茶 雪 云 竹 松 麦 渔 陶 纸 灯 霜 芦 柳 鹤 蜡 炭"),
        _words("庄 坊 塘 桥 市 路 岭 屋 渡 亭 窑 仓 园 井"),
    ),
    syllables=(
        _words("建 国 文 明 小 海 春 玉 志 思 晓 家 永 秀 云 德"),
        _words("华 芳 平 军 兰 林 生 梅 峰 成 雨 宁"),
    ),
    stop="。",
    space="",
)

# Masculine singulars behind a verb in the past: the usual order of a sentence, and everything agrees.
ARABIC = Language(
    code="ar",
    templates=(
        "{verb} {noun} {adj} {noun} {when}.",
        "{when} {verb} {name} {noun}، لكن {noun} {adj} لم يتغير.",
        "قال {name} إن {noun} {adj} {verb} {noun}.",
        "بعد {number} سنة {verb} {noun} {noun} {adj} في مدينة {name}.",
        "كان {noun} قرب {noun}، ثم {verb} {noun} {adj} كل شيء.",
        "ليس {noun} بل {noun} {adj} هو الذي {verb} {noun}.",
        "{verb} {noun} و{verb} {noun} {adj} {when}.",
        "عندما {verb} {name} {noun}، بقي {noun} {adj} في مكانه.",
    ),
    slots={
        "when": ("بعد الحرب", "في أول الربيع", "ذلك المساء", "قبل الفيضان", "منذ سنوات", "يوم الأحد"),
        "noun": _words(
            "البيت الكتاب الشارع السوق الجسر المعلم النهر البستان الشتاء المجلس المركب الجبل الباب الطبيب المطبخ",
            "الوادي المصنع الطريق الحقل الدفتر الرسام الصياد الخباز المسرح النفق الفانوس المنجم الخزان النحال",
            "القبو المتحف النصب المرصد المخزن الكرم السد الميناء البرج الحارس النجار",
        ),
        "verb": _words(
            "رأى وصف غير زار فتح حمل أغلق تذكر قاس عبر درس مدح راقب عد بلغ ترك رمم أهمل باع ورث حرس رسم ترجم أخفى",
        ),
        "adj": _words(
            "القديم الصغير الجديد الطويل الهادئ الشمالي الضيق الخشبي المنسي الثقيل البعيد الفارغ المشهور الخفي",
            "المتواضع الصبور الصدئ المالح الضحل المشمس",
        ),
    },
    openers=("من المهم أن نلاحظ أنه", "في عالم اليوم", "بشكل عام،"),
    compounds=(
        _words("البحر الملح النحاس الخشب الزجاج الصوف الشمع القمح الطين العسل الحجر الورق الغيم الرمل المطر القصب"),
        _words("ي يون اني اوي ية يات"),
    ),
    syllables=(
        _words("سال نور كري حس رش جم فر زي طار عام بدر هان"),
        _words("م ين ان يد ير ال وان اس"),
    ),
)

LANGUAGES: Mapping[str, Language] = {
    language.code: language for language in (ENGLISH, GERMAN, RUSSIAN, CHINESE, ARABIC)
}


class Author:
    """Writes one document: people coin words and names of their own, models reuse what is frequent."""

    def __init__(self, language: Language, draws: Draws, *, human: bool = True) -> None:
        self._language = language
        self._draws = draws
        self._human = human
        coining = draws if human else Draws(f"model {language.code}")
        self._names = [language.coin_name(coining) for _ in range(3)]
        self._slots = language.slots if human else _heads(language)

    def text(self, sentences: int) -> str:
        """Paragraphs of two to six sentences."""
        paragraphs = []
        while sentences > 0:
            length = min(self._draws.between(2, 6), sentences)
            paragraphs.append(self._language.space.join(self._sentence() for _ in range(length)))
            sentences -= length
        return "\n\n".join(paragraphs)

    def title(self) -> str:
        return self._sentence().rstrip(".。")

    def reword(self, text: str) -> str:
        """The text as a model would put it: half of the content words replaced, paragraphs begun with stock phrases."""
        slot_of = _slot_of_word(self._language.code)

        def replace(match: re.Match[str]) -> str:
            slot = slot_of.get(match[0])
            return self._word(slot) if slot and self._draws.chance(0.5) else match[0]

        paragraphs = (_WORD.sub(replace, paragraph) for paragraph in text.split("\n\n"))
        return "\n\n".join(self._opened(paragraph) for paragraph in paragraphs)

    def _sentence(self) -> str:
        template = self._draws.zipf(self._language.templates)
        sentence = _SLOT.sub(lambda match: self._word(match[1]), template)
        if not self._human and self._draws.chance(0.3):
            return self._opened(sentence)
        return sentence[:1].upper() + sentence[1:]

    def _opened(self, sentence: str) -> str:
        opener = self._draws.zipf(self._language.openers)
        return opener + self._language.space + sentence[:1].lower() + sentence[1:]

    def _word(self, slot: str) -> str:
        if slot == "name":
            return self._draws.pick(self._names)
        if slot == "number":
            return str(self._draws.between(3, 900) if self._human else 10 * self._draws.between(1, 5))
        if slot == "noun" and self._human and self._draws.chance(0.08):
            return self._language.coin_noun(self._draws)
        return self._draws.zipf(self._slots[slot])


_WORD = re.compile(r"[^\W_]+")
_SLOT = re.compile(r"\{(\w+)\}")


def _heads(language: Language) -> Mapping[str, tuple[str, ...]]:
    """The most frequent quarter of every slot: what remains once the tails are cut."""
    return {slot: words[: max(4, len(words) // 4)] for slot, words in language.slots.items()}


@cache
def _slot_of_word(code: str) -> Mapping[str, str]:
    return {word: slot for slot, words in LANGUAGES[code].slots.items() for word in words}


@dataclass(frozen=True)
class Copy:
    """A planted duplicate; the two documents have `shared` of `union` five-word shingles in common."""

    source: str
    id: str
    of_source: str
    of_id: str
    shared: int
    union: int


@dataclass(frozen=True)
class SampleTruth:
    """What was planted where."""

    documents: Mapping[str, int]  # per source
    exact_duplicates: tuple[Copy, ...]
    near_duplicates: tuple[Copy, ...]
    empties: Mapping[str, tuple[str, ...]]  # ids per source
    artefacts: Mapping[str, tuple[str, ...]]  # ids per source; each document carries two kinds of artefact


def write_samples(directory: Path, *, seed: int = 7, documents: int = 600) -> SampleTruth:
    """Write the six sample sources below `directory`/shards; equal arguments give equal documents."""
    if documents < FEWEST_DOCUMENTS:
        raise UsageError(
            "too_few_documents",
            f"documents = {documents}: the samples plant several kinds of document and need at least "
            f"{FEWEST_DOCUMENTS} to hold one of each. Ask for more.",
            documents=documents,
            least=FEWEST_DOCUMENTS,
        )
    counts = {source: round(share * documents) for source, share in SHARES.items()}
    press = _press(seed, counts["press"])
    archive = _archive(seed, counts["archive"])
    web, truth = _web(seed, counts["web"], press, archive)
    shards: dict[str, list[Sequence[Row]]] = {
        "press/press-{}.parquet": _dealt(press, 3),
        "archive/archive-{}.jsonl.zst": _dealt(archive, 2),
        "web/crawl-{}.parquet": [web[len(web) // 4 :]],
        "web/export-{}.csv.gz": [web[: len(web) // 4]],
        "forum/posts-{}.jsonl": [_forum(seed, counts["forum"])],
        "rephrased/rephrased-{}.jsonl.zst": [_rephrased(seed, counts["rephrased"], press)],
        "stories/stories-{}.parquet": [_stories(seed, counts["stories"])],
    }
    for name, parts in shards.items():
        for number, rows in enumerate(parts):
            write_rows(directory / "shards" / name.format(f"{number:05d}"), rows)
    return SampleTruth(documents=counts, **truth)


def _press(seed: int, count: int) -> list[Row]:
    """Attested articles, English and German in turn."""
    rows = []
    for number in range(count):
        draws = Draws(f"{seed} press {number}")
        language = (ENGLISH, GERMAN)[number % 2]
        author = Author(language, draws)
        rows.append(
            {
                "id": f"press-{number:04d}",
                "text": author.text(draws.between(14, 40)),
                "language": language.code,
                "url": f"https://press.example/{language.code}/{number:04d}",
                "title": author.title(),
                "published": date(1998, 1, 1) + timedelta(days=draws.between(0, 7300)),
            }
        )
    return rows


def _archive(seed: int, count: int) -> list[Row]:
    """Pages of which nothing but a declaration says that people wrote them."""
    rows = []
    for number in range(count):
        draws = Draws(f"{seed} archive {number}")
        language = (RUSSIAN, CHINESE, ARABIC)[number % 3]
        text = Author(language, draws).text(draws.between(8, 26))
        rows.append({"id": f"archive-{number:04d}", "text": text, "language": language.code})
    return rows


def _forum(seed: int, count: int) -> list[Row]:
    """Posts with a label column, half of them written by a bot, under names of their own for every column."""
    rows = []
    for number in range(count):
        draws = Draws(f"{seed} forum {number}")
        language = (ENGLISH, GERMAN, RUSSIAN)[number % 3]
        human = draws.chance(0.5)
        body = Author(language, draws, human=human).text(draws.between(5, 14))
        rows.append(
            {"post_id": f"forum-{number:04d}", "body": body, "lang": language.code, "is_human": str(int(human))}
        )
    return rows


def _rephrased(seed: int, count: int, press: Sequence[Row]) -> list[Row]:
    """Press articles reworded by a model: about the same things, too far apart to be near-duplicates."""
    rows = []
    for number in range(count):
        article = press[number * len(press) // count]
        draws = Draws(f"{seed} rephrased {number}")
        text = Author(LANGUAGES[article["language"]], draws, human=False).reword(article["text"])
        rows.append({"id": f"rephrased-{number:04d}", "text": text, "language": article["language"]})
    return rows


def _stories(seed: int, count: int) -> list[Row]:
    """Stories that name the model which wrote them."""
    rows = []
    for number in range(count):
        draws = Draws(f"{seed} stories {number}")
        language = (ENGLISH, CHINESE)[number // 2 % 2]
        rows.append(
            {
                "id": f"stories-{number:04d}",
                "text": Author(language, draws, human=False).text(draws.between(14, 34)),
                "language": language.code,
                "generator": STORY_GENERATORS[number % 2],
            }
        )
    return rows


def _web(seed: int, count: int, press: Sequence[Row], archive: Sequence[Row]) -> tuple[list[Row], dict[str, Any]]:
    """A crawl of unknown origin, and the copies, assistant leftovers and empty pages planted in it."""
    rows: list[Row] = []
    exact: list[Copy] = []
    near: list[Copy] = []
    empties: list[str] = []
    artefacts: list[str] = []
    for number in range(count):
        draws = Draws(f"{seed} web {number}")
        page_id = f"web-{number:04d}"
        language = (ENGLISH, GERMAN, RUSSIAN)[number % 3]
        # The remainder by 24 decides what a page is, so that every shard has some of each kind.
        match number % 24:
            case 1 | 7 | 13 | 19:
                source, originals = ("press", press) if number % 12 == 1 else ("archive", archive)
                original = originals[number // 6 % len(originals)]
                language, text = LANGUAGES[original["language"]], original["text"]
                exact.append(_copy(page_id, text, source, original))
            case 4 | 10 | 16:
                # From the other end than the exact copies, so that no article is copied both ways.
                original = press[-1 - number // 6 % len(press)]
                language = LANGUAGES[original["language"]]
                text = _retouched(original["text"], language, draws)
                near.append(_copy(page_id, text, "press", original))
            case 6:
                language = ENGLISH
                text = _with_artefacts(Author(language, draws).text(draws.between(8, 20)))
                artefacts.append(page_id)
            case 11:
                text = draws.pick(("", " \n\t "))
                empties.append(page_id)
            case _:
                text = Author(language, draws).text(draws.between(8, 30))
        rows.append({"id": page_id, "text": text, "language": language.code})
    return rows, {
        "exact_duplicates": tuple(exact),
        "near_duplicates": tuple(near),
        "empties": {"web": tuple(empties)},
        "artefacts": {"web": tuple(artefacts)},
    }


def _copy(page_id: str, text: str, source: str, original: Row) -> Copy:
    mine, theirs = _shingles(text), _shingles(original["text"])
    return Copy("web", page_id, source, original["id"], len(mine & theirs), len(mine | theirs))


def _shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return {tuple(words[start : start + size]) for start in range(max(1, len(words) - size + 1))}


def _retouched(text: str, language: Language, draws: Draws) -> str:
    """A few words replaced, evenly spread, for a Jaccard of about .87 to .95 with the original.

    Of n shingles each replaced word breaks five: k words leave n - 5k shared and n + 5k in the union.
    """
    words = list(_WORD.finditer(text))
    similarity = 0.87 + 0.06 * draws.between(0, 100) / 100
    changes = max(1, int((len(words) - 4) * (1 - similarity) / (5 * (1 + similarity))))
    pieces, done = [], 0
    for change in range(changes):
        word = words[(2 * change + 1) * len(words) // (2 * changes)]
        pieces += [text[done : word.start()], language.coin_noun(draws)]
        done = word.end()
    return "".join([*pieces, text[done:]])


def _with_artefacts(text: str) -> str:
    first, _, rest = text.partition("\n\n")
    return (
        f"{first} :contentReference[oaicite:0]{{index=0}}\n\n{rest}\n\n"
        "As an AI language model, I cannot visit the places described above."
    )


def _dealt(rows: Sequence[Row], shards: int) -> list[Sequence[Row]]:
    return [rows[shard * len(rows) // shards : (shard + 1) * len(rows) // shards] for shard in range(shards)]


def write_rows(path: Path, rows: Sequence[Row], *, row_group: int = 24) -> None:
    """Write rows in the format and compression that the file's name says; equal rows give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        # Small row groups, because real shards have many.
        pq.write_table(pa.Table.from_pylist(list(rows)), path, compression="zstd", row_group_size=row_group)
        return
    data = _csv(rows) if ".csv" in path.suffixes else _json_lines(rows)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = zstandard.compress(data)
    path.write_bytes(data)


def _csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json_lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def init(directory: Path) -> dict[str, Any]:
    """Fill an empty folder with sample shards, a signed custody manifest and a config that runs as it is."""
    # Signing is needed by nothing else here: whoever only wants samples does not load it.
    from pipeline.attest import attest, write_keypair

    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        what = "is not empty" if directory.is_dir() else "is a file"
        raise UsageError(
            "init_not_empty",
            f"{directory} {what}: init writes only into a new or empty folder. Name another, or empty this one.",
            directory=str(directory),
        )
    truth = write_samples(directory)
    for folder in ("keys", "custody"):
        (directory / folder).mkdir()
    key, _ = write_keypair(directory / "keys" / PRESS_KEY)
    attest(
        sorted((directory / "shards" / "press").glob("*.parquet")),
        key,
        PRESS_METHOD,
        directory / PRESS_MANIFEST,
        source="press",
    )
    # The config comes last: where it stands, everything it names stands too.
    config = directory / TEMPLATE.name
    config.write_bytes(TEMPLATE.read_bytes())
    return {
        "directory": str(directory),
        "config": str(config),
        "documents": dict(truth.documents),
        "planted": {
            "exact_duplicates": len(truth.exact_duplicates),
            "near_duplicates": len(truth.near_duplicates),
            "empty": sum(map(len, truth.empties.values())),
            "artefacts": sum(map(len, truth.artefacts.values())),
        },
    }
