"""The roles of a conversation, and the names that files give them in a field of a message.

core/data/shapes/roles has the names of columns, core/data/shapes/turn_markers those before a colon in a text.
"""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["system", "user", "assistant", "tool"]
_USERS = """
    user human prompter customer client caller visitor guest patient student learner buyer inbound incoming received
    kunde kundin nutzer nutzerin benutzer anrufer cliente usuario usuária usuário utente utilisateur utilisatrice клиент
    пользователь 用户 客户 顾客 人类 患者 学生 ユーザー 顧客 고객 사용자"""
_ASSISTANTS = """
    assistant gpt chatgpt model bot chatbot ai agent function_call support operator representative rep advisor adviser
    helpdesk doctor therapist counselor counsellor tutor teacher seller outbound outgoing sent claude gemini llm
    berater beraterin assistent mitarbeiter agente asistente assistente conseiller оператор ассистент бот
    助手 助理 客服 机器人 医生 老师 アシスタント オペレーター 상담원 어시스턴트"""
ROLES: dict[str, Role] = {
    **dict.fromkeys(_USERS.split(), "user"),
    **dict.fromkeys(_ASSISTANTS.split(), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
}
_COUNTED = re.compile(r"[\s_#:-]*\d*:?$")  # agent_7, Agent #7


def role_of(value: object) -> Role | None:
    """Return the role that a cell or a field names, None if it names none."""
    return ROLES.get(_COUNTED.sub("", value.strip().lower())) if isinstance(value, str) else None
