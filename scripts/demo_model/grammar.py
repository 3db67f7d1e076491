"""The closed language of the demo model: sentence patterns, names, homophone groups, which sentences are held out.

Lives here: text only (standard library). Not here: speech, features, hot-word lists for training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

# Characters of a group sound alike in espeak-ng; the first is the common spelling.
SURNAMES: tuple[str, ...] = tuple("张章 江姜 余于俞 程成 石时 王 刘 陈 赵 周 吴 孙 杨 李 何".split())
GIVEN: tuple[str, ...] = tuple(
    "伟玮炜 明铭鸣 静敬靖 丽莉力 强蔷 芳方 杰洁捷 军君钧 婷庭亭 宇雨羽 林琳霖 晓小筱 佳嘉 文雯 红宏鸿 建健 志智 "
    "新欣 峰锋丰 国 海 龙 超 雪 梅 涛 波".split()
)
GROUP_OF: dict[str, str] = {character: group for group in SURNAMES + GIVEN for character in group}

# Spellings that never occur in a training transcript; they come right only as hot words.
RARE_NAMES: tuple[str, ...] = tuple(
    "章玮 章炜 姜庭 姜铭 俞靖 俞羽 成霖 成捷 时鸣 时锋 王钧 刘莉 陈捷 赵炜 周亭 吴霖 孙羽 杨鸿 李铭 何靖 章筱雨 姜嘉琳 "
    "俞智钧 成欣亭 时雯莉 王健锋 刘筱羽 陈嘉鸣 赵靖雯 周鸿捷 吴欣霖 孙智炜 杨筱琳 李健铭 何雯婷 章国丰 于海鸣 俞雪琳 "
    "姜晓方 成志蔷".split()
)

DIGITS = "零一二三四五六七八九"
ROOMS = "客厅 卧室 厨房 书房 阳台 车库 办公室 会议室".split()
DEVICES = "灯 空调 电视 窗帘 风扇 音响 热水器 电脑 大门".split()
CITIES = "北京 上海 广州 深圳 南京 天津 成都 重庆 西安 杭州 武汉 长沙 青岛 昆明".split()
WEATHER = "晴天 下雨 多云 下雪 有风 很冷 很热".split()
DAYS = "今天 明天 后天 昨天 周末 下周".split()
PARTS = "早上 上午 中午 下午 晚上".split()
THINGS = "音乐 新闻 地图 邮件 照片 日历 文件 订单 票 报告".split()
ACTIONS = "开会 吃饭 上班 上课 跑步 看电影 买菜 回家 签合同 做报告".split()
PLACES = "火车站 机场 大学 银行 医院".split()

CANONICAL_SHARE = 0.7
NAME_SHARE = 0.4
_HELD_OUT_BELOW = 8  # of 256: about 3 % of all sentences

Random = random.Random


@dataclass(frozen=True)
class Sentence:
    """Text of one spoken sentence and the name in it, '' when there is none."""

    text: str
    name: str = ""


def canonical(text: str) -> str:
    """Replace each name character by the common spelling of its sound."""
    return "".join(GROUP_OF.get(character, character)[0] for character in text)


def number(value: int) -> str:
    """Spell 0..9999 as it is said."""
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return "十" + (DIGITS[value % 10] if value % 10 else "")
    if value < 100:
        return DIGITS[value // 10] + "十" + (DIGITS[value % 10] if value % 10 else "")
    unit, size = ("百", 100) if value < 1000 else ("千", 1000)
    head, rest = DIGITS[value // size] + unit, value % size
    if rest == 0:
        return head
    zero = "零" if rest < size // 10 else ""
    return head + zero + ("一" if 10 <= rest < 20 else "") + number(rest)


def digits(rng: Random, count: int) -> str:
    """Return `count` digits said one by one."""
    return "".join(rng.choice(DIGITS) for _ in range(count))


def clock(rng: Random) -> str:
    """Return a time of day."""
    return number(rng.randint(1, 12)) + "点" + rng.choice(["", "半", number(rng.randint(1, 59)) + "分"])


def date(rng: Random) -> str:
    """Return month and day."""
    return number(rng.randint(1, 12)) + "月" + number(rng.randint(1, 31)) + rng.choice("号日")


def _weather(rng: Random) -> str:
    kind = rng.randrange(3)
    if kind == 0:
        return "天气怎么样"
    if kind == 1:
        return "会" + rng.choice(["下雨", "下雪"]) + "吗"
    return "的最高气温是" + number(rng.randint(0, 39)) + "度"


PLAIN: tuple[Callable[[Random], str], ...] = (
    lambda r: (
        r.choice(["打开", "关闭", "请打开", "帮我关闭"])
        + r.choice(ROOMS)
        + r.choice(["", "的"])
        + r.choice(DEVICES)
    ),
    lambda r: "把" + r.choice(ROOMS) + "的" + r.choice(DEVICES) + r.choice(["打开", "关闭", "关上"]),
    lambda r: "把空调调到" + number(r.randint(16, 30)) + "度",
    lambda r: r.choice(CITIES) + r.choice(DAYS) + _weather(r),
    lambda r: r.choice(DAYS) + r.choice(CITIES) + r.choice(WEATHER),
    lambda r: (
        "我要买一张从"
        + r.choice(CITIES)
        + "到"
        + r.choice(CITIES)
        + "的"
        + r.choice(["火车票", "飞机票", "票"])
    ),
    lambda r: "导航到" + r.choice(CITIES) + r.choice(PLACES),
    lambda r: "请" + r.choice(DAYS) + r.choice(PARTS) + clock(r) + "叫我" + r.choice(ACTIONS),
    lambda r: (
        date(r) + r.choice(PARTS) + clock(r) + r.choice(["", "在" + r.choice(CITIES)]) + r.choice(ACTIONS)
    ),
    lambda r: "现在是" + r.choice(PARTS) + clock(r),
    lambda r: "电话号码是一" + r.choice("三五七八九") + digits(r, 9),
    lambda r: "我的号码是" + digits(r, r.randint(4, 8)),
    lambda r: digits(r, r.randint(3, 8)),
    lambda r: "一共是" + number(r.randint(1, 9999)) + r.choice(["元", "个", "人", "次", "公里"]),
    lambda r: "二零" + r.choice("一二") + r.choice(DIGITS) + "年" + date(r),
    lambda r: number(r.randint(1, 99)) + r.choice("加减乘") + number(r.randint(1, 99)) + "等于多少",
    lambda r: (
        r.choice(["播放", "暂停", "下载", "删除", "查看", "发送"])
        + r.choice(DAYS + CITIES)
        + "的"
        + r.choice(THINGS)
    ),
    lambda r: "音量调到百分之" + number(r.randint(1, 99)),
)
NAMED: tuple[Callable[[Random, str], str], ...] = (
    lambda r, n: "给" + n + r.choice(["打电话", "发邮件", "发一张照片"]),
    lambda r, n: (
        r.choice(["请", "帮我"])
        + "通知"
        + n
        + r.choice(DAYS)
        + r.choice(PARTS)
        + clock(r)
        + r.choice(ACTIONS)
    ),
    lambda r, n: n + r.choice(DAYS) + r.choice("在去") + r.choice(CITIES) + r.choice(ACTIONS),
    lambda r, n: "我叫" + n + r.choice(["", "我的号码是" + digits(r, 4)]),
    lambda r, n: "查看" + n + "的" + r.choice(THINGS),
    lambda r, n: n + "的电话号码是" + digits(r, r.randint(4, 7)),
    lambda r, n: r.choice(DAYS) + "和" + n + "一起" + r.choice(ACTIONS),
    lambda r, n: "请问" + n + r.choice(["在吗", "在哪里", "是谁"]),
)


def name_groups(rng: Random) -> list[str]:
    """Draw the sound of a name: a surname group and one or two given-name groups."""
    return [rng.choice(SURNAMES)] + [rng.choice(GIVEN) for _ in range(1 if rng.random() < 0.45 else 2)]


def random_name(rng: Random, canonical_share: float = 0.0) -> str:
    """Draw a name; each character is the common spelling with `canonical_share`, else any spelling of its sound."""
    return "".join(
        group[0] if rng.random() < canonical_share else rng.choice(group) for group in name_groups(rng)
    )


def training_name(rng: Random) -> str:
    """Draw a name as training transcripts spell it: mostly common spellings, no rare name in it."""
    while True:
        name = "".join(
            group[0] if len(group) == 1 or rng.random() < CANONICAL_SHARE else rng.choice(group[1:])
            for group in name_groups(rng)
        )
        if not any(rare in name for rare in RARE_NAMES):
            return name


def plain_sentence(rng: Random) -> Sentence:
    """Draw a sentence without a name."""
    return Sentence(rng.choice(PLAIN)(rng))


def named_sentence(rng: Random, name: str) -> Sentence:
    """Draw a sentence about `name`."""
    return Sentence(rng.choice(NAMED)(rng, name), name)


def sentence(rng: Random, name_share: float = NAME_SHARE) -> Sentence:
    """Draw any sentence."""
    if rng.random() < name_share:
        return named_sentence(rng, training_name(rng))
    return plain_sentence(rng)


def held_out(text: str) -> bool:
    """Whether a sentence belongs to the held-out set: decided by its text alone, so no run can mix the sets."""
    return hashlib.md5(canonical(text).encode(), usedforsecurity=False).digest()[0] < _HELD_OUT_BELOW


def vocabulary() -> list[str]:
    """All tokens in id order: blank, <s>, </s>, characters, <nobias>, <unk>."""
    rng = random.Random(0)
    texts = [pattern(rng) for pattern in PLAIN for _ in range(400)]
    texts += [pattern(rng, "".join(GROUP_OF)) for pattern in NAMED for _ in range(400)]
    return ["<blank>", "<s>", "</s>", *sorted(set("".join(texts))), "<nobias>", "<unk>"]
