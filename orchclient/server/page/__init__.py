"""The page: HTML for people in a browser. It works without JavaScript, and every text of an agent is hostile to it.

Made of the functions of ``people``; must not know SQL, nor be known by what programs use.
"""

from orchclient.server.page import acting, door, looking
from orchclient.server.page.blueprint import page

__all__ = ["acting", "door", "looking", "page"]
